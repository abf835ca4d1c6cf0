"""The messages between a flow and the child job that runs a stage's body, as files in a shared folder.

`job.json` says what to do. The flow creates the file `stop` when the job should end at its next step boundary. The
job's main rank appends its events to `events.jsonl`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict

from configs.disk.files import append_jsonl
from tasks.running.stage import Context

JOB = "job.json"
STOP = "stop"
EVENTS = "events.jsonl"
LOOK_EVERY_S = 0.2


StageKind = Literal["policy", "reward_model"]


class Job(BaseModel):
    """`job.json`: the stage whose body is run, its specification, and the parent process."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: StageKind
    spec: dict[str, Any]
    out_dir: str
    parent: int
    """process id of the flow"""


class Event(BaseModel):
    """One event of a job, a line of `events.jsonl`; `failed` is always the last."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["written", "warn", "progress", "say", "failed"]
    text: str = ""
    """the warning, the note, or the error message"""
    error: str = ""
    """class name of the error"""
    done: int = 0
    total: int | None = None
    unit: str | None = None


@dataclass(frozen=True)
class Teller:
    """Appends events to `events.jsonl`, an exception that leaves the block as the last. Also the stage's `Progress`."""

    folder: Path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.tell(Event(kind="failed", error=type(error).__name__, text=str(error)))

    def tell(self, event: Event) -> None:
        append_jsonl(self.folder / EVENTS, [event.model_dump(exclude_defaults=True)])

    def set(self, done: int, *, total: int | None = None, unit: str | None = None) -> None:
        self.tell(Event(kind="progress", done=done, total=total, unit=unit))

    def say(self, note: str) -> None:
        self.tell(Event(kind="say", text=note))

    def context(self) -> Context:
        return Context(
            should_stop=(self.folder / STOP).exists,
            written=lambda: self.tell(Event(kind="written")),
            progress=self,
            warn=lambda text: self.tell(Event(kind="warn", text=text)),
        )
