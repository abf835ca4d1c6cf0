"""The preference pairs and review items that a run has: its own, and those of the runs before it in its chain.

A follow-on refers to them: its run.json names the files that its predecessor had made by then, with their digests, and the
predecessor's own run.json those before. Runs of older versions hold copies instead, all in one file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from configs.disk.files import digest
from configs.errors import ConfigError
from configs.paths import RUN_FILE
from tasks.runs.run_file import Inherited, InheritedFile, RunFile, read_run
from tasks.runs.workspace import round_folder

Kind = Literal["pairs", "review"]
PAIRS, REVIEW = "pairs.jsonl", "review.jsonl"
COPIES: dict[Kind, str] = {"pairs": "inherited_pairs.jsonl", "review": "inherited_review.jsonl"}


def pair_files(run_dir: Path, *, before: int) -> list[Path]:
    """Files of preference pairs from rounds before `before` and from earlier runs of the chain, oldest first.

    Raises:
        ConfigError: a file of an earlier run is gone or has changed since the run was started.
    """
    return [*_inherited(run_dir, "pairs"), *_own_pairs(run_dir, before)]


def review_files(run_dir: Path, *, before: int) -> list[Path]:
    """Files of review items of reward models from rounds before `before` and from earlier runs, oldest first.

    Raises:
        ConfigError: as `pair_files`.
    """
    return [*_inherited(run_dir, "review"), *_own_reviews(run_dir, before)]


def inheritance(run_dir: Path, *, before: int) -> Inherited:
    """What a follow-on gets of the run in `run_dir`: the files of its rounds before `before`."""

    def listed(files: list[Path]) -> list[InheritedFile]:
        return [InheritedFile(path=path.relative_to(run_dir).as_posix(), digest=digest(path)) for path in files]

    return Inherited(pairs=listed(_own_pairs(run_dir, before)), review=listed(_own_reviews(run_dir, before)))


def refuse_lost(run_dir: Path) -> None:
    """Check that all files of earlier runs are there; raises ConfigError as `pair_files`."""
    for kind in COPIES:
        _inherited(run_dir, kind)


def _own_pairs(run_dir: Path, before: int) -> list[Path]:
    """People's labels of a round's samples are in the next round's folder, beside the reward model that learns from them."""
    files = []
    for round_index in range(before):
        files += [
            round_folder(run_dir, round_index) / "regenerate" / PAIRS,
            round_folder(run_dir, round_index + 1) / "labels" / PAIRS,
        ]
    return [path for path in files if path.exists()]


def _own_reviews(run_dir: Path, before: int) -> list[Path]:
    files = [round_folder(run_dir, round_index) / "regenerate" / REVIEW for round_index in range(before)]
    return [path for path in files if path.exists()]


def _inherited(run_dir: Path, kind: Kind) -> list[Path]:
    """The files of earlier runs, oldest first."""
    newest_first: list[Path] = []
    passed = {run_dir}
    while not (copy := run_dir / COPIES[kind]).exists():
        file = _run_in(run_dir)
        if file is None or file.predecessor is None or file.inherited is None:
            return newest_first[::-1]
        before = run_dir.with_name(file.predecessor)
        newest_first += [_found(file, before, item) for item in reversed(getattr(file.inherited, kind))]
        if before in passed or _run_in(before) is None:
            raise ConfigError(_lost(file, f"folder {before}"))
        passed.add(before)
        run_dir = before
    return [copy, *newest_first[::-1]]


def _run_in(run_dir: Path) -> RunFile | None:
    return read_run(run_dir.parent.parent, run_dir.name) if (run_dir / RUN_FILE).exists() else None


def _found(file: RunFile, before: Path, item: InheritedFile) -> Path:
    path = before / item.path
    if not path.exists():
        raise ConfigError(_lost(file, str(path)))
    if digest(path) != item.digest:
        raise ConfigError(
            f"{path} has changed since run {file.name!r} inherited it from run {file.predecessor!r}; "
            "restore it, or start a run of its own with --run NEWNAME"
        )
    return path


def _lost(file: RunFile, what: str) -> str:
    return (
        f"run {file.name!r} inherits the pairs of its predecessor {file.predecessor!r}, whose {what} is gone; "
        "restore it, or start a run of its own with --run NEWNAME"
    )
