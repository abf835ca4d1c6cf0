"""A stage's body as a child job: what `tasks.running.launcher` starts, alone or as one of several ranks.

    python -m tasks.job FOLDER

`FOLDER` is shared with the parent. It holds `job.json`; a file `stop` comes when the parent wants the stage to end at its next step
boundary, and `events.jsonl` takes what the main rank has to tell. The parent's death ends the job.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict

from configs.disk.files import append_jsonl
from tasks.running.allocator import reused_memory
from tasks.running.stage import ALONE, Context
from tasks.stages import policy, reward_model

JOB = "job.json"
STOP = "stop"
EVENTS = "events.jsonl"
LOOK_EVERY_S = 0.2
FAILED = 1

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


BODIES: dict[StageKind, Callable[[dict[str, Any], Path, Context], None]] = {
    "policy": lambda spec, out_dir, context: policy.run(policy.PolicySpec.model_validate(spec), out_dir, context),
    "reward_model": lambda spec, out_dir, context: reward_model.run(
        reward_model.RewardModelSpec.model_validate(spec), out_dir, context
    ),
}


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


def main(folder: Path) -> None:
    job = Job.model_validate_json((folder / JOB).read_bytes())
    threading.Thread(target=_end_with, args=(job.parent,), daemon=True).start()
    is_main = os.environ.get("RANK", "0") == "0"
    with reused_memory(), Teller(folder) if is_main else nullcontext() as teller:
        BODIES[job.stage](job.spec, Path(job.out_dir), ALONE if teller is None else teller.context())


def _end_with(parent: int) -> None:
    """End this process when the one that wanted it is gone."""
    while _lives(parent):
        time.sleep(LOOK_EVERY_S)
    os._exit(FAILED)


def _lives(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    main(Path(sys.argv[1]))
