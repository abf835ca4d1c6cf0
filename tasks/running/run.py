"""A run in progress: configuration, folders, and what its stages report to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from configs.records import Policy
from configs.schema.config import Config
from tasks.alerting.alerts import Alerts
from tasks.running.clock import Clock
from tasks.runs.follow_on import chain_name, policy_model
from tasks.runs.run_file import RunFile, read_run
from tasks.runs.times import note_call
from tasks.runs.workspace import problems_of_round
from tasks.showing.terminal import Terminal
from tasks.tracking.tracker import Tracking


@dataclass(frozen=True)
class Run:
    """What every stage of a run needs; the stages report to `tracking`, `console`, `alerts` and `clock`."""

    config: Config
    name: str
    folder: Path
    workspace: Path
    tracking: Tracking
    console: Terminal
    alerts: Alerts
    should_stop: Callable[[], bool]
    prefect_flow_run_id: str | None = None
    clock: Clock = field(default_factory=Clock)
    beside: tuple[str, ...] = ()
    """names of runs of the workspace that may have measured the same: other members of a comparison"""

    def note_time(self, *, ended: bool = False) -> None:
        """Put the time of this call so far on disk, and whether it is at its end; a full disk does not end the run."""
        try:
            note_call(self.folder, self.clock.now().model_copy(update={"ended": ended}))
        except OSError as error:
            self.console.warn(f"the time of this call could not be noted: {error}")

    @property
    def file(self) -> RunFile:
        """The current content of `run.json`."""
        return read_run(self.workspace, self.name)

    @property
    def given_policy(self) -> Policy:
        policy = self.file.given_policy
        assert policy is not None, "prepare(run) comes first"
        return policy

    @property
    def initial_policy(self) -> Policy:
        policy = self.file.initial_policy
        assert policy is not None, "prepare(run) comes first"
        return policy

    def problems(self, round_index: int, split: str) -> Path:
        """The file of one split of a round's problems."""
        return problems_of_round(self.folder, round_index, self.file.rounds_asked) / f"{split}.jsonl"

    @property
    def policy_model(self) -> str:
        """Name of the registered model that holds the policies of the run's chain."""
        return policy_model(self.workspace, self.name)

    def reward_model(self, name: str) -> str:
        """Name of the registered model that holds the chain's reward models `name`."""
        return f"{chain_name(self.workspace, self.name)}-reward-{name}"
