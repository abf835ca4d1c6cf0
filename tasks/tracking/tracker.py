"""Reports a run to MLflow: its start, its stages one after the other, its end.

What a stage writes on disk is sent as it comes. What cannot be sent because the tracking server is away is sent at the
end of this stage or a later one, at the end of the run, or when the run is resumed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from requests import RequestException
from sqlalchemy.exc import SQLAlchemyError

from configs.disk.files import digest_json
from configs.schema.config import Config
from tasks.runs.facts import Outcome, StageFacts, Status, load, save
from tasks.tracking.outbox import TRACKING, StageTracking
from tasks.tracking.sending import send_missing, send_run_files, send_stage
from tasks.tracking.server import prepare_environment, without_password
from tasks.tracking.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient

ResultT = TypeVar("ResultT")

SYNC_EVERY_S = 2.0
RETRY_EVERY_S = 30.0


class Tracking:
    """Reports one run to MLflow. No method raises because the tracking server is away."""

    def __init__(
        self,
        root: Path,
        folder: Path,
        *,
        name: str,
        uid: str,
        config: Config,
        warn: Callable[[str], None],
        uri: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = Store(root, name=name, uid=uid, config=config, uri=uri)
        self.folder = folder
        self._warn = warn
        self._warned = False
        self._clock = clock
        self._not_before = 0.0
        self._current: Path | None = None

    # ---- the life of a run ----

    def start(self) -> None:
        """Set runs of dead processes to KILLED, find or create the parent run, and send what is missing."""
        self.store.tags = {"regroup.config_digest": digest_json(self.store.config.model_dump(mode="json"))}
        with self._reaching():
            self.store.end_runs_of_dead_processes()
            parent_id = self.store.parent_run()
            self.store.client.update_run(parent_id, status="RUNNING")
            self.store.set_tags(parent_id, self.store.tags)
            send_missing(self.store, self.folder)

    def start_stage(self, folder: Path, facts: StageFacts) -> None:
        """Start a new attempt at a stage; what MLflow has of earlier attempts is deleted."""
        self._write_down(folder, facts)
        self._current = folder
        with self._reaching():
            self.store.revive_round(facts.key)
            send_stage(self.store, folder)

    def _write_down(self, folder: Path, facts: StageFacts) -> None:
        facts = facts.model_copy(update={"tags": self.store.tags | facts.tags})
        save(folder / TRACKING, StageTracking(facts=facts))

    def sync(self) -> None:
        """Send what the current stage wrote, at most every `SYNC_EVERY_S` seconds."""
        if self._current is None or self._clock() < self._not_before:
            return
        self._not_before = self._clock() + SYNC_EVERY_S
        with self._reaching():
            send_stage(self.store, self._current)

    def end_stage(
        self, folder: Path, status: Status, outcome: Outcome | None = None, *, ended_ms: int | None = None
    ) -> None:
        """Record that the current attempt ended, and send everything that is missing, also of earlier stages."""
        self._current = None
        if (record := load(folder / TRACKING, StageTracking)) is None:
            return
        ended = {"status": status, "ended_ms": ended_ms or int(time.time() * 1000), "outcome": outcome or Outcome()}
        save(folder / TRACKING, record.model_copy(update=ended))
        self.send_missing()

    def stage_stands(self, folder: Path, facts: StageFacts, outcome: Callable[[], Outcome], ended_ms: int) -> None:
        """Record a stage that an earlier process finished, in case that process died before it could do so."""
        record = load(folder / TRACKING, StageTracking)
        if record is not None and record.status == "FINISHED":
            return
        if record is None:
            self._write_down(folder, facts)
        self.end_stage(folder, "FINISHED", outcome(), ended_ms=ended_ms)

    def send_missing(self) -> None:
        """Send what is on disk and not yet in MLflow."""
        with self._reaching():
            send_missing(self.store, self.folder)

    def finish(self, status: Status) -> None:
        """End the run: send what is missing and the run's files (summary, report, log), and leave nothing RUNNING."""
        with self._reaching():
            send_missing(self.store, self.folder)
            send_run_files(self.store, self.folder, status)
            self.store.end_all(status)

    # ---- what others want to know ----

    @property
    def uri(self) -> str:
        return self.store.uri

    @property
    def display_uri(self) -> str:
        """The tracking address without user name and password."""
        return without_password(self.store.uri)

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the parent run; None until the server was reached."""
        return self.store.ids.get("")

    @property
    def experiment_id(self) -> str | None:
        """MLflow's id of the experiment; None until the server was reached."""
        return self.store.experiment_id

    @property
    def run_url(self) -> str | None:
        """URL of the parent run's page; None if there is no server (`regroup ui` starts one)."""
        if self.run_id is None or not self.store.uri.startswith("http"):
            return None
        page = f"#/experiments/{self.experiment_id}/runs/{self.run_id}?workflowType=machine_learning"
        return f"{self.display_uri.rstrip('/')}/{page}"

    def stage_run_id(self, folder: Path) -> str | None:
        """MLflow's id of a stage's run; None until the stage was sent."""
        record = load(folder / TRACKING, StageTracking)
        return record.run_id if record else None

    # ---- reaching the server ----

    def reach(self, work: Callable[[MlflowClient, str], ResultT], *, away: ResultT) -> ResultT:
        """The result of `work(client, experiment id)`, or `away` if the tracking server cannot be reached."""
        result = away
        with self._reaching():
            result = work(self.store.client, self.store.experiment())
        return result

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Catch errors of an unreachable server, which end the block: warn once, pause `sync` for `RETRY_EVERY_S`."""
        prepare_environment()
        from mlflow.exceptions import MlflowException

        try:
            yield
            self._warned = False
        except (MlflowException, RequestException, SQLAlchemyError, OSError) as error:
            self._not_before = self._clock() + RETRY_EVERY_S
            if not self._warned:
                first_line = without_password(str(error).partition("\n")[0])[:300]
                self._warn(f"MLflow at {self.display_uri} cannot be told ({first_line}); it will be sent later")
            self._warned = True
