"""Keeps account of what was sent to MLflow and what is still to be sent, without importing MLflow.

Each stage's `.tracking.json` says what was sent; what is left follows from its journal, rollouts and manifest.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from configs.disk.files import JOURNAL, MANIFEST, JournalLine, read_manifest, whole_lines
from configs.records import Record
from tasks.runs.cleaned import cleaned_files
from tasks.runs.facts import ROUND_FILE, Outcome, RoundFile, StageFacts, Status, load, save
from tasks.runs.run_file import RunFile, run_files
from tasks.runs.stage_files import COMPLETIONS, EXAMPLES, ROLLOUTS, SCORES
from tasks.runs.workspace import run_folder

TRACKING = ".tracking.json"
TABLE_ROWS = 512
"""maximum number of rows of a table; the .jsonl artifact beside it has all"""


class StageTracking(Record):
    """`.tracking.json` of a stage: its current attempt, and what MLflow was sent of it."""

    facts: StageFacts
    attempt: str = Field(default_factory=lambda: uuid.uuid4().hex)
    status: Status = "RUNNING"
    ended_ms: int | None = None
    outcome: Outcome = Outcome()
    parent_id: str | None = None
    """MLflow id of the parent run that the fields below are about; under another parent run all is sent again"""
    run_id: str | None = None
    described: bool = False
    """whether parameters and data sets were sent"""
    journal_offset: int = 0
    """number of bytes of journal.jsonl that were sent"""
    ended: bool = False
    """whether the final status and tags were sent, after all metrics"""
    rollouts_offset: int = 0
    tables: list[str] = Field(default_factory=list)
    files: list[str] = Field(default_factory=list)
    done: bool = False
    """whether everything was sent, files and registered model too"""

    def under(self, parent_id: str) -> StageTracking:
        """This record, or one in which nothing was sent if MLflow's parent run has changed."""
        if self.parent_id == parent_id:
            return self
        return StageTracking(
            facts=self.facts,
            attempt=self.attempt,
            status=self.status,
            ended_ms=self.ended_ms,
            outcome=self.outcome,
            parent_id=parent_id,
        )


class RoundTracking(Record):
    """`.tracking.json` of a round."""

    parent_id: str
    run_id: str
    ended_ms: int


class RunTracking(Record):
    """`.tracking.json` of a run."""

    parent_id: str | None = None
    status: Status
    """what the run's last call ended with; RUNNING while it works, or if it was killed"""
    files: dict[str, str] = Field(default_factory=dict)
    """{artifact path: sha256} of what was sent"""
    complete: bool = True
    """whether everything was sent"""


class Artifact(NamedTuple):
    """A file and its path among a run's artifacts."""

    source: Path
    name: str


@dataclass(frozen=True)
class Lack:
    """How much of a run MLflow lacks."""

    runs: int = 0
    metrics: int = 0
    files: int = 0
    models: int = 0

    def __add__(self, other: Lack) -> Lack:
        return Lack(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    def __bool__(self) -> bool:
        return any(astuple(self))

    def __str__(self) -> str:
        """For instance `2 runs, 1,157 values of metrics and 1 file`."""
        counts = {"run": self.runs, "value": self.metrics, "file": self.files, "registered model": self.models}
        parts = [f"{count:,} {name}{'' if count == 1 else 's'}" for name, count in counts.items() if count]
        parts = [re.sub(r"values?$", r"\g<0> of metrics", part) for part in parts]
        return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def stage_records(run_dir: Path) -> list[tuple[Path, StageTracking]]:
    """(folder, record) of the run's stages, in the order in which the stages started."""
    tracked = [(path.parent, load(path, StageTracking)) for path in run_dir.glob(f"**/{TRACKING}")]
    found = [(folder, record) for folder, record in tracked if record is not None]
    return sorted(found, key=lambda pair: (pair[1].facts.started_ms, pair[0]))


def unsent_stages(run_dir: Path) -> list[Path]:
    """Folders of the stages of which MLflow lacks something, in the order in which the stages started."""
    return [folder for folder, record in stage_records(run_dir) if not record.done]


def end_dead_stages(run_dir: Path) -> None:
    """Write down that the stages of a run that nobody works on were killed, if they had not ended."""
    for folder, record in stage_records(run_dir):
        if record.status == "RUNNING":
            ended_ms = int(1000 * (folder / TRACKING).stat().st_mtime)
            save(folder / TRACKING, record.model_copy(update={"status": "KILLED", "ended_ms": ended_ms}))


def incomplete_runs(root: Path) -> list[RunFile]:
    """The runs of the workspace of which MLflow lacks something, oldest first."""
    return [file for file in run_files(root) if _is_incomplete(run_folder(root, file.name))]


def _is_incomplete(run_dir: Path) -> bool:
    record = load(run_dir / TRACKING, RunTracking)
    return not record.complete if record is not None else bool(stage_records(run_dir))


def changed_rounds(run_dir: Path) -> list[Path]:
    """Folders of the finished rounds that were closed, or closed again, since they were last sent."""
    rounds = [(path.parent, load(path, RoundFile)) for path in sorted(run_dir.glob(f"round_*/{ROUND_FILE}"))]
    sent = {folder: load(folder / TRACKING, RoundTracking) for folder, _ in rounds}
    return [folder for folder, file in rounds if file and getattr(sent[folder], "ended_ms", None) != file.ended_ms]


def unsent_files(stage_dir: Path, record: StageTracking) -> list[Artifact]:
    """The files of a finished stage that were not sent yet: those of its manifest, and those of a model elsewhere.

    Files that were cleaned away cannot be sent any more.
    """
    manifest = read_manifest(stage_dir) if record.status == "FINISHED" else None
    if manifest is None or record.done:
        return []
    artifacts = [Artifact(stage_dir / name, name) for name in [*manifest.outputs, MANIFEST]]
    model = record.outcome.model
    if model is not None and model.source is not None:
        source = Path(model.source)
        paths = sorted(path for path in source.rglob("*") if path.is_file())
        artifacts += [Artifact(path, f"{model.folder}/{path.relative_to(source).as_posix()}") for path in paths]
    gone = {*record.files, *cleaned_files(stage_dir)}
    return [artifact for artifact in artifacts if artifact.name not in gone]


def lacking(run_dir: Path) -> Lack:
    """What MLflow lacks of a run, by the run's own files."""
    records, run = stage_records(run_dir), load(run_dir / TRACKING, RunTracking)
    known = (run is not None and run.parent_id) or any(record.parent_id for _, record in records)
    of_stages = [_lacking_of(folder, record) for folder, record in records if not record.done]
    return sum(of_stages, Lack(runs=len(changed_rounds(run_dir)) + int(not known)))


def _lacking_of(stage_dir: Path, record: StageTracking) -> Lack:
    lines, _ = _lines_from(stage_dir / JOURNAL, record.journal_offset)
    tables = rollout_tables(stage_dir, record.rollouts_offset)
    return Lack(
        runs=int(not record.ended),
        metrics=len(lines),
        files=len(unsent_files(stage_dir, record)) + len(tables),
        models=int(record.outcome.model is not None),
    )


# ---- journal and tables ---------------------------------------------------------------------------------------------


def journal_lines(folder: Path, offset: int) -> tuple[list[JournalLine], int]:
    """The whole lines of the journal from byte `offset` on, and the offset after them."""
    lines, end = _lines_from(folder / JOURNAL, offset)
    return [JournalLine.model_validate_json(line) for line in lines], end


def _lines_from(path: Path, offset: int) -> tuple[list[bytes], int]:
    lines = whole_lines(path, offset) if path.exists() else []
    return lines, offset + sum(map(len, lines))


class Table(NamedTuple):
    """A table artifact: its path and rows, and the offset in the rollouts after it."""

    name: str
    rows: list[dict[str, Any]]
    end: int = 0


def rollout_tables(folder: Path, offset: int) -> list[Table]:
    """A table for each step of the rollouts from byte `offset` on."""
    lines, _ = _lines_from(folder / ROLLOUTS, offset)
    tables = []
    for step, group in groupby(((json.loads(line), len(line)) for line in lines), key=lambda pair: pair[0]["step"]):
        rows, lengths = zip(*group, strict=True)
        offset += sum(lengths)
        tables.append(Table(f"completions/{step:06d}.json", [flat_row(row) for row in rows], offset))
    return tables


def final_tables(folder: Path) -> list[Table]:
    """The tables of a finished evaluation or regeneration."""
    tables = {"tables/examples.json": _rows(folder / EXAMPLES)}
    completions, scores = _rows(folder / COMPLETIONS), _rows(folder / SCORES)
    shown = ("problem_key", "index", "text", "finish_reason", "policy_id")
    tables["tables/completions.json"] = [
        {name: completion[name] for name in shown} | {"parts": score["parts"], "total": score["total"]}
        for completion, score in zip(completions, scores, strict=True)
    ]
    return [Table(path, [flat_row(row) for row in rows]) for path, rows in tables.items() if rows]


def _rows(path: Path) -> list[dict[str, Any]]:
    lines, _ = _lines_from(path, 0)
    return [json.loads(line) for line in lines[:TABLE_ROWS]]


def flat_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a table: each objective is a column, other nested values are JSON text."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if name == "parts":
            flat |= {f"reward/{objective}": part for objective, part in value.items()}
        else:
            flat[name] = json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
    return flat


def table_json(rows: list[dict[str, Any]]) -> str:
    """A table artifact in the form that MLflow's page reads (pandas' orient "split"); a missing value is null."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    data = [[row.get(column) for column in columns] for row in rows]
    return json.dumps({"columns": columns, "data": data}, ensure_ascii=False, allow_nan=False)


def tables_tag(paths: Iterable[str], limit: int) -> str:
    """MLflow's list of table artifacts as JSON: the newest that fit into `limit` characters."""
    entries = [json.dumps({"path": path, "type": "table"}) for path in paths]
    length, num_kept = 2, 0
    for entry in reversed(entries):
        length += len(entry) + 2
        if length > limit:
            break
        num_kept += 1
    return f"[{', '.join(entries[len(entries) - num_kept :])}]"


def in_batches(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
