"""What a run's time went into, over all calls that worked on it: finished stages, work that was lost, bookkeeping.

The pauses between two calls are part of none. Each call notes its own time in `calls.jsonl` at the start and end of
every stage, so what a killed call spent after that is known only as far as a checkpoint keeps it.
"""

from __future__ import annotations

from pathlib import Path

from configs.disk.files import MANIFEST, append_jsonl, read_manifest, whole_lines
from configs.records import Record

CALLS = "calls.jsonl"


class CallTime(Record):
    """The time of one process up to now, in seconds; the last line of each call counts."""

    call: str
    """start and id of the process"""
    whole: float
    work: float
    """time in stages, finished or not"""
    ended: bool = False
    """whether the process came to its end, whichever that was, and was not killed"""


class RunTime(Record):
    """What the time of a run went into, in seconds; the parts add up to `whole`."""

    whole: float
    stages: float
    """work of the stages as they stand, also that of earlier calls which a checkpoint kept"""
    lost: float
    """further work: of attempts that were interrupted and began anew, and of stages that ran again"""
    bookkeeping: float
    """everything else: Prefect, MLflow, manifests, start and end"""
    copied: float = 0.0
    """what stages that were copied from another run took there; no part of `whole`"""


def note_call(run_dir: Path, time: CallTime) -> None:
    path = run_dir / CALLS
    torn = path.exists() and not path.read_bytes().endswith(b"\n")
    if torn:  # by a kill, or a full disk
        path.write_bytes(b"".join(whole_lines(path)))
    append_jsonl(path, [time])


def run_time(run_dir: Path) -> RunTime:
    """What the time of the run in `run_dir` went into so far."""
    calls = _calls(run_dir)
    manifests = [m for path in run_dir.rglob(MANIFEST) if (m := read_manifest(path.parent)) is not None]
    stages = sum(manifest.seconds for manifest in manifests if manifest.copied_from is None)
    copied = sum(manifest.seconds for manifest in manifests if manifest.copied_from is not None)
    lost = max(0.0, sum(call.work for call in calls) - stages)
    bookkeeping = sum(call.whole - call.work for call in calls)
    return RunTime(whole=stages + lost + bookkeeping, stages=stages, lost=lost, bookkeeping=bookkeeping, copied=copied)


def killed_calls(run_dir: Path, now: CallTime) -> list[CallTime]:
    """The calls before that of `now` which did not come to an end, oldest first."""
    return [call for call in _calls(run_dir) if not call.ended and call.call != now.call]


def _calls(run_dir: Path) -> list[CallTime]:
    """The last line of each call."""
    lines = whole_lines(run_dir / CALLS) if (run_dir / CALLS).exists() else []
    return list({call.call: call for call in map(CallTime.model_validate_json, lines)}.values())
