"""What a stage's body as a child job and the flow that started it have to say to each other, in a folder that both see.

`job.json` says what to do; a file `stop` comes when the flow wants the job to end at its next step boundary; `events.jsonl` takes
what the job's main rank has to tell.
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
    """`job.json`: which body, on what, for whom."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: StageKind
    spec: dict[str, Any]
    out_dir: str
    parent: int
    """process id"""


class Event(BaseModel):
    """One thing that a job tells; `failed` is its last."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["written", "warn", "progress", "say", "failed"]
    text: str = ""
    """a warning, a note, or an error's message"""
    error: str = ""
    """class of the error"""
    done: int = 0
    total: int | None = None
    unit: str | None = None


@dataclass(frozen=True)
class Teller:
    """Appends events, of which an error that leaves the block is the last; also the stage's `Progress`."""

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
