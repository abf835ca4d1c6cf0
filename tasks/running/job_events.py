"""The messages between a flow and the child job that runs a stage's body, as files in a folder of the workspace.

`job.json` says what to do. The flow counts in the file `heart` for as long as it lives, and creates the file `stop` when the job
should end at its next step boundary. The job's main rank appends its events to `events.jsonl`. Where several machines do a job,
`tasks.running.machines` describes the other files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict

from configs.disk.files import append_jsonl
from configs.schema.run import LauncherConfig
from tasks.running.stage import Context

JOBS = "jobs"
"""folder of a run that holds the folders of its jobs"""
JOB = "job.json"
HEART = "heart"
START, STOP = "start", "stop"
EVENTS = "events.jsonl"
AGENT, RANKS = "agent.store", "ranks.store"
"""files in which torchrun's agent, and the ranks, find each other on one machine"""
LOOK_EVERY_S = 0.2


StageKind = Literal["policy", "cold_start", "reward_model"]


class Job(BaseModel):
    """`job.json`: the stage whose body is run, and its specification."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: StageKind
    spec: dict[str, Any]
    out_dir: str
    workspace: str
    """the flow's current folder"""
    launcher: LauncherConfig
    stores: str | None = None
    """folder of this machine in which its ranks meet; where they are on several, they meet at an address"""

    def seen_from(self, workspace: Path) -> Job:
        """The job on a machine where the workspace is another folder: each path in it that lies in the workspace is moved."""
        if str(workspace) == self.workspace:
            return self
        return self.model_copy(
            update={
                "spec": _moved(self.spec, self.workspace, str(workspace)),
                "out_dir": _moved(self.out_dir, self.workspace, str(workspace)),
                "workspace": str(workspace),
            }
        )


def _moved(value: Any, old: str, new: str) -> Any:
    if isinstance(value, dict):
        return {key: _moved(inner, old, new) for key, inner in value.items()}
    if isinstance(value, list):
        return [_moved(inner, old, new) for inner in value]
    if isinstance(value, str) and (value == old or value.startswith(f"{old}/")):
        return new + value[len(old) :]
    return value


def read_job(folder: Path) -> Job:
    """The job in a folder, on a machine whose current folder is the workspace."""
    return Job.model_validate_json((folder / JOB).read_bytes()).seen_from(Path.cwd())


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
