"""Records of what a run's stages and rounds did, kept as files; `tasks.tracking` sends them to MLflow."""

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
    source: str | None = None
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


def load(path: Path, kind: type[RecordT]) -> RecordT | None:
    """The record in a file, or None if there is no file or it does not fit, as that of another version."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def save(path: Path, record: Record) -> None:
    write_json(path, record.model_dump(mode="json"))
