"""Records of what a run's stages and rounds did, kept as files; `tasks.tracking` sends them to MLflow."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field

from configs.disk.files import read_jsonl, write_json
from configs.paths import StoredPath, context_of
from configs.records import Record, RoundState

ROUND_FILE, ROLLBACKS = "round.json", "rollbacks.jsonl"

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
RecordT = TypeVar("RecordT", bound=Record)


class DatasetFact(Record):
    """A data file that a stage reads."""

    name: str
    digest: str
    context: str
    """what the file is read for: training, evaluation, ..."""
    source: str
    num_rows: int


class ModelFact(Record):
    """A model folder of a stage, to be registered in MLflow."""

    name: str
    """name of the registered model"""
    folder: str
    """path relative to the stage's artifacts"""
    alias: str
    tags: dict[str, str] = Field(default_factory=dict)
    source: StoredPath | None = None
    """local folder whose files are sent as artifacts; None if they are among the files in the manifest"""


class StageFacts(Record):
    """What is known of an attempt at a stage when it starts."""

    key: str
    started_ms: int
    tags: dict[str, str]
    params: dict[str, str]
    datasets: list[DatasetFact]


class Outcome(Record):
    """What a finished attempt at a stage adds: a model to register, and tags."""

    model: ModelFact | None = None
    tags: dict[str, str] = Field(default_factory=dict)


class AliasFact(Record):
    """`alias` of a registered model points at the version that the stage `key` made, or at none if `key` is None."""

    name: str
    alias: str
    key: str | None


class RoundFile(Record):
    """`round.json`: the state that a finished round hands on, and what is sent to MLflow's parent run.

    Its times come from the manifests, so that the file is the same when a finished round is entered again.
    """

    round: int
    state: RoundState
    ended_ms: int
    metrics: dict[str, float]
    aliases: list[AliasFact]


class Rollback(Record):
    """A line of `rollbacks.jsonl`: the promotion of `run` that was wrong, and the policy that is champion since.

    It stands in the folder of that run and of each later run of the chain, all of which built on the wrong one.
    """

    at_ms: int
    run: str
    """the run that was named; its champion was taken back"""
    back_from: str
    """id of the policy that was champion"""
    to_run: str
    to_round: int
    """round of `to_run` whose policy is champion since; 0 is the policy that it started from"""
    to_policy: str
    """id of that policy"""
    after_round: int | None
    """last round that the run whose folder this is had finished; later rounds start from the champion that is back"""
    reason: str

    def __str__(self) -> str:
        day = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.at_ms / 1000))
        why = f": {self.reason}" if self.reason else ""
        return f"rolled back to round {self.to_round} of run {self.to_run} on {day}{why}"


def rollbacks(run_dir: Path) -> list[Rollback]:
    """The rollbacks that a run is touched by, oldest first."""
    path = run_dir / ROLLBACKS
    return read_jsonl(path, Rollback) if path.exists() else []


def load(path: Path, kind: type[RecordT]) -> RecordT | None:
    """The record in a file of a run's folder, or None if there is no file or it does not fit, as that of another version."""
    try:
        return kind.model_validate_json(path.read_bytes(), context=context_of(path))
    except (FileNotFoundError, ValueError):
        return None


def save(path: Path, record: Record) -> None:
    """Write a record to a file of a run's folder."""
    write_json(path, record.model_dump(mode="json", context=context_of(path)))
