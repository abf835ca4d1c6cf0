"""What is known of a run's stages and rounds, told once and kept as files; `tasks.tracking` passes it on to MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field

from configs.disk.files import write_json
from configs.records import Record, RoundState

ROUND_FILE = "round.json"

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
RecordT = TypeVar("RecordT", bound=Record)


class DatasetFact(Record):
    """A split that a stage reads."""

    name: str
    digest: str
    context: str
    """training, evaluation, ..."""
    source: str
    num_rows: int


class ModelFact(Record):
    """A model folder of a stage that the registry should hold."""

    name: str
    """of the registered model"""
    folder: str
    """relative to the stage's artifacts"""
    alias: str
    tags: dict[str, str] = Field(default_factory=dict)
    source: str | None = None
    """local folder whose files become the artifacts; None where the manifest's files hold them"""


class StageFacts(Record):
    """What is known of a stage's attempt when it starts."""

    key: str
    started_ms: int
    tags: dict[str, str]
    params: dict[str, str]
    datasets: list[DatasetFact]


class Outcome(Record):
    """What is known of a stage's attempt when it is finished, beside its files."""

    model: ModelFact | None = None
    tags: dict[str, str] = Field(default_factory=dict)


class AliasFact(Record):
    """`alias` of a registered model points at the version that a stage made, or at none (`key` None)."""

    name: str
    alias: str
    key: str | None


class RoundFile(Record):
    """`round.json`: how a finished round ended, and what MLflow's parent run is told of it. Times come from manifests, so
    that it is written the same when a finished round is entered again."""

    round: int
    state: RoundState
    ended_ms: int
    metrics: dict[str, float]
    aliases: list[AliasFact]


def load(path: Path, kind: type[RecordT]) -> RecordT | None:
    """The record in a file, or None where there is none or it is of another version."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def save(path: Path, record: Record) -> None:
    write_json(path, record.model_dump(mode="json"))
