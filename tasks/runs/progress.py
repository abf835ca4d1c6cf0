"""How far the runs of a workspace are, read from few small files and without heavy imports, so that `regroup status` is
quick. What is missing or broken is None: a run may be at work."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.runs.facts import rollbacks
from tasks.runs.workspace import round_folder, runs_folder

Sizes = dict[tuple[int, int], int]
"""{(device, inode): bytes} of files, so that a hard-linked one counts once"""


@dataclass(frozen=True)
class Progress:
    """What a table of runs shows of one."""

    name: str
    finished: bool
    """whether all its rounds are done"""
    step: int
    """step of the newest checkpoint of an interrupted stage; 0 without one"""
    last_stage: str | None
    """`round 1 · policy`"""
    accuracies: tuple[float | None, float | None]
    """greedy accuracy on test of the policy that the run started from and of its champion"""
    sizes: Sizes
    rolled_back: str | None
    """the last rollback that touched it, in words"""


def all_progress(root: Path) -> list[Progress]:
    """The workspace's runs, oldest first; a folder without a readable run.json is passed over (`unreadable_runs`)."""
    found = [(path.parent, _run_content(path)) for path in sorted(runs_folder(root).glob("*/run.json"))]
    runs = [(folder, file) for folder, file in found if file is not None and file["name"] == folder.name]
    runs.sort(key=lambda run: (run[1]["created_ms"], run[1]["name"]))
    return [_progress(folder, file) for folder, file in runs]


def unreadable_runs(root: Path) -> list[str]:
    """Names of the folders whose run.json holds no run, or cannot be read."""
    return [path.parent.name for path in sorted(runs_folder(root).glob("*/run.json")) if _run_content(path) is None]


def _run_content(path: Path) -> dict[str, Any] | None:
    content = read_json(path)
    wanted = {"name": str, "created_ms": int, "config": dict}
    is_run = isinstance(content, dict) and all(isinstance(content.get(key), kind) for key, kind in wanted.items())
    return content if is_run else None


def _progress(folder: Path, file: dict[str, Any]) -> Progress:
    sizes: Sizes = {}
    manifests = []
    for entry in files_below(folder):
        sizes |= _size(entry)
        if entry.name == "manifest.json":
            manifests.append(Path(entry.path))
    finished = _is_finished(folder, file["config"].get("rounds", 2))
    return Progress(
        name=file["name"],
        finished=finished,
        step=0 if finished else _last_step(folder),
        last_stage=_last_stage(folder, manifests),
        accuracies=(_accuracy(folder, 0), _accuracy(folder, champion_round(folder))),
        sizes=sizes,
        rolled_back=next((str(back) for back in reversed(rollbacks(folder))), None),
    )


def rounds_wanted(run_dir: Path, rounds: int) -> int:
    """The number of rounds after round 0 that the run has so far.

    That is `rounds`, and one more whenever a watch rule with `extra_rounds` left ended the training of the last one.
    """
    wanted = rounds
    while _extra_rounds(round_folder(run_dir, wanted) / "policy") > wanted - rounds:
        wanted += 1
    return wanted


def _extra_rounds(policy_dir: Path) -> int:
    result = read_json(policy_dir / "result.json") if (policy_dir / "manifest.json").exists() else None
    return int((result or {}).get("extra_rounds", 0))


def champion_round(run_dir: Path) -> int:
    """The round whose policy is the run's champion: the last one that was promoted, or the one that a later rollback went
    back to. It is 0 for the policy that the run started from, and if the rollback went back past that."""
    back = next(reversed(rollbacks(run_dir)), None)
    champion = back.to_round if back and back.to_run == run_dir.name else 0
    round_index = (back.after_round or 0) + 1 if back else 1
    while round_folder(run_dir, round_index).exists():
        decision = read_json(round_folder(run_dir, round_index) / "promote" / "decision.json")
        champion = round_index if decision and decision["promoted"] else champion
        round_index += 1
    return champion


def _is_finished(folder: Path, rounds: int) -> bool:
    summary = read_json(folder / "summary.json")
    wanted = rounds_wanted(folder, rounds)
    if summary is None or summary["status"] != "done" or len(summary["rounds"]) != wanted + 1:
        return False
    last = round_folder(folder, wanted)
    return (last / "promote" / "decision.json").exists() and (last / "regenerate" / "manifest.json").exists()


def _last_stage(folder: Path, manifests: list[Path]) -> str | None:
    """The stage of a round that was finished last, without reward models that were retrained by hand."""
    parts = [path.relative_to(folder).parts for path in manifests]
    rounds = [part for part in parts if part[0].startswith("round_") and "reward_model_by_hand" not in part]
    last = max((part[0] for part in rounds), default=None)
    read = [read_json(folder.joinpath(*part)) for part in rounds if part[0] == last]
    done = max((manifest for manifest in read if manifest), key=lambda manifest: manifest["started_ms"], default=None)
    return f"round {done['round']} · {done['stage']}" if done else None


def _accuracy(folder: Path, round_index: int) -> float | None:
    report = read_json(round_folder(folder, round_index) / "evaluate" / "report.json") or {}
    value = report.get("test", {}).get("values", {}).get("greedy_accuracy")
    return None if value is None else float(value["estimate"])


def _last_step(folder: Path) -> int:
    """Step of the newest checkpoint of any stage, whether it is complete or not; 0 without one."""
    numbers = [path.name.removeprefix("step_") for path in folder.glob("round_*/**/checkpoints/step_*")]
    return max((int(number) for number in numbers if number.isdigit()), default=0)


def read_json(path: Path) -> Any:
    """The value in a JSON file; None if there is none, or a broken one."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def files_below(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Every file below a folder; what vanishes meanwhile is passed over."""
    try:
        with os.scandir(folder) as entries:
            listed = list(entries)
    except OSError:
        return
    for entry in listed:
        if entry.is_dir(follow_symlinks=False):
            yield from files_below(Path(entry.path))
        else:
            yield entry


def sizes_below(folder: Path) -> Sizes:
    sizes: Sizes = {}
    for entry in files_below(folder):
        sizes |= _size(entry)
    return sizes


def _size(entry: os.DirEntry[str]) -> Sizes:
    with suppress(OSError):
        stat = entry.stat(follow_symlinks=False)
        return {(stat.st_dev, stat.st_ino): stat.st_size}
    return {}


def readable(num_bytes: float) -> str:
    """A size with its unit, for instance `3.2 GiB`."""
    for unit in ("B", "KiB", "MiB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} GiB"
