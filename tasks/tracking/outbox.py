"""What was sent to MLflow and what is still to be sent: each stage's `.tracking.json` says the former, and the rest follows from
its journal, rollouts and manifest. Nothing here knows MLflow."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from pydantic import Field

from configs.disk.files import JOURNAL, JournalLine, whole_lines
from configs.records import Record
from tasks.runs.facts import Outcome, StageFacts, Status, load

TRACKING = ".tracking.json"
TABLE_ROWS = 512
"""most rows of a table; the whole data are in the .jsonl artifact beside it"""


class StageTracking(Record):
    """`.tracking.json` of a stage."""

    facts: StageFacts
    attempt: str = Field(default_factory=lambda: uuid.uuid4().hex)
    status: Status = "RUNNING"
    ended_ms: int | None = None
    outcome: Outcome = Outcome()
    parent_id: str | None = None
    """MLflow parent run that the rest was sent to; under another one all is sent again"""
    run_id: str | None = None
    described: bool = False
    journal_offset: int = 0
    """bytes of journal.jsonl that were sent"""
    rollouts_offset: int = 0
    tables: list[str] = Field(default_factory=list)
    files: list[str] = Field(default_factory=list)
    done: bool = False

    def under(self, parent_id: str) -> StageTracking:
        """Itself, or with nothing sent where MLflow's parent run is another one than before."""
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

    parent_id: str
    status: Status
    files: dict[str, str] = Field(default_factory=dict)
    """{artifact path: sha256} that was sent"""


def stage_folders(run_dir: Path) -> list[Path]:
    """Folders of the run's stages, by the time at which they started."""
    found = [(load(path, StageTracking), path.parent) for path in run_dir.glob(f"**/{TRACKING}")]
    return [
        folder for record, folder in sorted(((r.facts.started_ms, f) for r, f in found if r), key=lambda pair: pair)
    ]


# ---- journal and tables ---------------------------------------------------------------------------------------------


def journal_lines(folder: Path, offset: int) -> tuple[list[JournalLine], int]:
    """Whole lines from byte `offset` on, and the offset behind them."""
    lines, end = _lines_from(folder / JOURNAL, offset)
    return [JournalLine.model_validate_json(line) for line in lines], end


def _lines_from(path: Path, offset: int) -> tuple[list[bytes], int]:
    lines = whole_lines(path, offset) if path.exists() else []
    return lines, offset + sum(map(len, lines))


def rollout_tables(folder: Path, offset: int) -> tuple[dict[str, list[dict[str, Any]]], int]:
    """{artifact path: rows} for each step whose rollouts lie behind byte `offset`, and the offset behind them."""
    lines, end = _lines_from(folder / "rollouts.jsonl", offset)
    rows = [json.loads(line) for line in lines]
    steps = groupby(rows, key=lambda row: row["step"])
    return {f"completions/{step:06d}.json": [flat_row(row) for row in group] for step, group in steps}, end


def final_tables(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """{artifact path: rows} of what a finished evaluation or regeneration has to show."""
    tables = {"tables/examples.json": _rows(folder / "examples.jsonl")}
    completions, scores = _rows(folder / "completions.jsonl"), _rows(folder / "scores.jsonl")
    shown = ("problem_key", "index", "text", "finish_reason", "policy_id")
    tables["tables/completions.json"] = [
        {name: completion[name] for name in shown} | {"parts": score["parts"], "total": score["total"]}
        for completion, score in zip(completions, scores, strict=True)
    ]
    return {path: [flat_row(row) for row in rows] for path, rows in tables.items() if rows}


def _rows(path: Path) -> list[dict[str, Any]]:
    lines, _ = _lines_from(path, 0)
    return [json.loads(line) for line in lines[:TABLE_ROWS]]


def flat_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row for a table: each objective a column of its own, other nested values as JSON text."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if name == "parts":
            flat |= {f"reward/{objective}": part for objective, part in value.items()}
        else:
            flat[name] = json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
    return flat


def table_json(rows: list[dict[str, Any]]) -> str:
    """A table artifact as MLflow's page reads it (pandas' orient "split"); a missing value is null."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    data = [[row.get(column) for column in columns] for row in rows]
    return json.dumps({"columns": columns, "data": data}, ensure_ascii=False, allow_nan=False)


def tables_tag(paths: Iterable[str], limit: int) -> str:
    """MLflow's list of table artifacts as JSON of at most `limit` characters: the newest that fit."""
    entries = [json.dumps({"path": path, "type": "table"}) for path in paths]
    length, kept = 2, 0
    for entry in reversed(entries):
        length += len(entry) + 2
        if length > limit:
            break
        kept += 1
    return f"[{', '.join(entries[len(entries) - kept :])}]"


def in_batches(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
