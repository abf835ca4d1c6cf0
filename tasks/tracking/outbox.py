"""Keeps account of what was sent to MLflow and what is still to be sent, without importing MLflow.

Each stage's `.tracking.json` says what was sent; what is left follows from its journal, rollouts and manifest.
"""

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
from tasks.runs.stage_files import COMPLETIONS, EXAMPLES, ROLLOUTS, SCORES

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
    rollouts_offset: int = 0
    tables: list[str] = Field(default_factory=list)
    files: list[str] = Field(default_factory=list)
    done: bool = False

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

    parent_id: str
    status: Status
    files: dict[str, str] = Field(default_factory=dict)
    """{artifact path: sha256} of what was sent"""


def stage_folders(run_dir: Path) -> list[Path]:
    """Folders of the run's stages, in the order in which the stages started."""
    tracked = [(load(path, StageTracking), path.parent) for path in run_dir.glob(f"**/{TRACKING}")]
    return [
        folder for record, folder in sorted(((r.facts.started_ms, f) for r, f in tracked if r), key=lambda pair: pair)
    ]


# ---- journal and tables ---------------------------------------------------------------------------------------------


def journal_lines(folder: Path, offset: int) -> tuple[list[JournalLine], int]:
    """The whole lines of the journal from byte `offset` on, and the offset after them."""
    lines, end = _lines_from(folder / JOURNAL, offset)
    return [JournalLine.model_validate_json(line) for line in lines], end


def _lines_from(path: Path, offset: int) -> tuple[list[bytes], int]:
    lines = whole_lines(path, offset) if path.exists() else []
    return lines, offset + sum(map(len, lines))


def rollout_tables(folder: Path, offset: int) -> tuple[dict[str, list[dict[str, Any]]], int]:
    """{artifact path: rows}, a table per step, of the rollouts from byte `offset` on, and the offset after them."""
    lines, end = _lines_from(folder / ROLLOUTS, offset)
    rows = [json.loads(line) for line in lines]
    steps = groupby(rows, key=lambda row: row["step"])
    return {f"completions/{step:06d}.json": [flat_row(row) for row in group] for step, group in steps}, end


def final_tables(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """{artifact path: rows} of the tables of a finished evaluation or regeneration."""
    tables = {"tables/examples.json": _rows(folder / EXAMPLES)}
    completions, scores = _rows(folder / COMPLETIONS), _rows(folder / SCORES)
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
