"""Reads and writes `compare.json`, which says what a comparison is and when it began, and `comparison.json`, its result."""

from __future__ import annotations

import datetime
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from configs.disk.files import write_json
from configs.errors import ConfigError
from configs.paths import RUN_FILE
from configs.records import Record
from configs.schema.comparing.compare import Comparison, Member
from grpo_train.problems.sources import source_digests
from tasks.comparing.members import SOURCE, data_of_run
from tasks.comparing.result import Compared
from tasks.runs.run_file import refuse_other_config
from tasks.runs.workspace import run_folder, runs_folder

FILE, RESULT = "compare.json", "comparison.json"


class ComparisonFile(Record):
    """The content of `compare.json`."""

    uid: str
    """random id, by which MLflow knows the comparison"""
    created_ms: int
    date: datetime.date
    """the day on which it began, which chat templates of all members get unless the configuration names one"""
    comparison: Comparison
    """as it was last started or gone on with"""


def comparison_folder(root: Path, name: str) -> Path:
    return runs_folder(root) / f"compare-{name}"


def open_comparison(root: Path, comparison: Comparison) -> ComparisonFile:
    """Write the comparison's file, or bring the one that is there up to date; id and date stay.

    Methods, seeds and factors may come and go. What else has changed since members were started is refused before anything is
    written or trained.

    Raises:
        ConfigError: a run has the name of the comparison's folder, or a comparison that of a member; or the configuration of a
            member that was started, or the data of its problems, are others now.
    """
    folder = comparison_folder(root, comparison.name)
    refuse_taken_names(root, comparison)
    if (folder / FILE).exists():
        file = read_comparison(folder).model_copy(update={"comparison": comparison})
    else:
        now = time.time()
        today = datetime.datetime.fromtimestamp(now).date()
        file = ComparisonFile(uid=uuid.uuid4().hex, created_ms=int(now * 1000), date=today, comparison=comparison)
    _refuse_other_members(root, list(comparison.members(file.date)))
    write_json(folder / FILE, file.model_dump(mode="json"))
    return file


def _refuse_other_members(root: Path, members: Sequence[Member]) -> None:
    sources = members[0].config.problems.sources  # which all members share
    now: dict[str, str] | None = None
    for member in members:
        if not (run_folder(root, member.name) / RUN_FILE).exists():
            continue
        refuse_other_config(root, member.config)
        before = data_of_run(run_folder(root, member.name))
        now = source_digests(sources) if now is None else now
        if changed := sorted(name for name in before if before[name] != now.get(name)):
            path = getattr(sources[int(changed[0].removeprefix(SOURCE))], "path", changed[0])
            raise ConfigError(
                f"{path} has changed since run {member.name!r} of this comparison made its problems of it, so that other runs would be "
                "given others; restore it, or compare anew under another name by --run NAME"
            )


def read_comparison(folder: Path) -> ComparisonFile:
    """The content of a comparison's file.

    Raises:
        ConfigError: it is broken, or does not fit this version.
    """
    path = folder / FILE
    try:
        return ComparisonFile.model_validate_json(path.read_bytes())
    except ValueError as error:
        raise ConfigError(
            f"{path} is broken, or of another version; restore it, or compare under another name by --run NAME"
        ) from error


def refuse_taken_names(root: Path, comparison: Comparison) -> None:
    """Check that the folders of the comparison and of its members are theirs.

    Raises:
        ConfigError: one is not.
    """
    folder = comparison_folder(root, comparison.name)
    taken = [folder] if (folder / RUN_FILE).exists() else []
    members = (run_folder(root, member.name) for member in comparison.members())
    taken += [path for path in members if (path / FILE).exists()]
    if taken:
        what = "a run" if taken[0] == folder else "another comparison"
        raise ConfigError(f"{taken[0]} is the folder of {what}; give this comparison another name by --run NAME")


def write_result(folder: Path, result: Compared) -> Path:
    """Write `comparison.json` and return its path."""
    write_json(folder / RESULT, result.model_dump(mode="json"))
    return folder / RESULT
