"""What a scheduled run leaves for `regroup serve`, which says in its own output what came of the run.

The run works in a process of its own, which may be killed at any time: what it has not written by then serve says from how the
process ended.
"""

import signal
import time
from pathlib import Path

from pydantic import ValidationError

from configs.disk.files import write_json
from configs.records import Record

FOLDER = Path(".prefect") / "scheduled"


class Scheduled(Record):
    """A scheduled run so far."""

    run: str | None = None
    """its name, once it is known which run of the chain is worked on"""
    outcome: str | None = None
    """what came of it, once it has ended by itself"""


def leave(root: Path, flow_run_id: str, scheduled: Scheduled) -> None:
    write_json(_file(root, flow_run_id), scheduled.model_dump())


def take(root: Path, flow_run_id: str) -> Scheduled:
    """What the run has left, which is then removed."""
    file = _file(root, flow_run_id)
    try:
        return Scheduled.model_validate_json(file.read_bytes())
    except (FileNotFoundError, ValidationError):
        return Scheduled()
    finally:
        file.unlink(missing_ok=True)


def left_behind(root: Path, *, is_held: bool) -> list[str]:
    """The last lines of runs that ended while no serve was there to say them; `is_held`: one still works in the workspace."""
    lines = []
    for file in sorted((root / FOLDER).glob("*.json")):
        scheduled = Scheduled.model_validate_json(file.read_bytes())
        if scheduled.outcome is not None or not is_held:
            lines.append(last_line(take(root, file.stem), None))
    return lines


def last_line(scheduled: Scheduled, exit_code: int | None) -> str:
    """What serve says when the process of a scheduled run has ended, for instance `tiny-0002: done, ...`."""
    name = scheduled.run or "scheduled run"
    if scheduled.outcome is not None:
        return f"{name}: {scheduled.outcome}"
    how = _ending(exit_code)
    if scheduled.run is None:
        return f"{name}: {how} before it began; the next one tries again; Prefect's page has its log"
    return f"{name}: {how} before it was done; the next scheduled run goes on with it; its log is runs/{name}/log.txt"


def _ending(exit_code: int | None) -> str:
    if exit_code is None:
        return "its process ended"
    if exit_code < 0:
        return f"its process was ended by {signal.Signals(-exit_code).name}"
    return f"its process ended with exit code {exit_code}"


def dated(text: str) -> str:
    """`text` with the local time before it."""
    return f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}"


def _file(root: Path, flow_run_id: str) -> Path:
    return root / FOLDER / f"{flow_run_id}.json"
