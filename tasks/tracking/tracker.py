"""Reports a run to MLflow: its start, its stages one after the other, its end.

What a stage writes on disk is sent as it comes. What cannot be sent because the tracking server is away is sent at the
end of this stage or a later one, at the end of the run, or when the run is resumed.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from configs.disk.files import digest_json
from configs.errors import ConfigError
from configs.schema.config import Config
from tasks.runs.facts import Outcome, StageFacts, Status, load, save
from tasks.runs.run_file import RunFile, stored_config
from tasks.runs.workspace import run_folder
from tasks.tracking.outbox import (
    TRACKING,
    StageTracking,
    end_dead_stages,
    incomplete_runs,
    lacking,
    stage_records,
)
from tasks.tracking.sending import (
    Attempts,
    note_run,
    run_record,
    send_files,
    send_metrics,
    send_run_files,
    send_tables,
    tell,
)
from tasks.tracking.server import (
    OWN_DATABASE,
    TRAINING_MODE,
    in_words,
    own_database,
    prepare_environment,
    without_password,
)
from tasks.tracking.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient

ResultT = TypeVar("ResultT")

SYNC_EVERY_S = 2.0
RETRY_EVERY_S = 30.0
FILES_S = 60.0
"""seconds after which no further file is sent while training waits"""
SLOW_S, PAUSE_FOR_SLOW = 2.0, 20.0
"""sending that takes longer than this is followed by a pause of so many times its length"""

logger = logging.getLogger("regroup")


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
        self.store = Store(root, name=name, uid=uid, config=config, uri=uri, warn=warn)
        self.folder = folder
        self._warn = warn
        self._warned: set[str] = set()
        self._is_away = False
        self._clock = clock
        self._not_before = 0.0
        self._tables_not_before = self._files_not_before = 0.0
        self._current: Path | None = None

    # ---- the life of a run ----

    def start(self) -> None:
        """Set runs of dead processes to KILLED, find or create the parent run, and send what is missing."""
        self.store.tags = {"regroup.config_digest": digest_json(self.store.config.model_dump(mode="json"))}
        note_run(self.folder, "RUNNING", complete=False)
        with self._reaching():
            self.store.end_runs_of_dead_processes()
            self._restore()
            parent_id = self.store.parent_run()
            self.store.client.update_run(parent_id, status="RUNNING")
            self.store.set_tags(parent_id, self.store.tags)
        if not self._is_away:
            self.send_missing()
            self._send_earlier(FILES_S)

    def start_stage(self, folder: Path, facts: StageFacts) -> None:
        """Start a new attempt at a stage; what MLflow has of earlier attempts is deleted."""
        self._write_down(folder, facts)
        self._current = folder
        with self._reaching() as attempt:
            self.store.revive_round(facts.key)
            attempt(tell, self.store, folder)

    def _write_down(self, folder: Path, facts: StageFacts) -> None:
        facts = facts.model_copy(update={"tags": self.store.tags | facts.tags})
        save(folder / TRACKING, StageTracking(facts=facts))

    def sync(self) -> None:
        """Send what the current stage wrote, at most every `SYNC_EVERY_S` seconds, and less often if MLflow is slow."""
        if self._current is None or self._clock() < self._not_before:
            return
        folder, began = self._current, self._clock()
        self._not_before = began + SYNC_EVERY_S
        with self._reaching() as attempt:
            attempt(tell, self.store, folder)
            if (took := self._clock() - began) > SLOW_S:
                self._not_before = began + PAUSE_FOR_SLOW * took
            if self._clock() >= self._tables_not_before:
                began = self._clock()
                sent = self._send_files(
                    SLOW_S, lambda files: send_tables(self.store, folder, files), all_are_sent=False
                )
                pause = self._after_a_pause(self._clock() - began, SLOW_S)
                self._tables_not_before = max(pause, self._clock() + (0.0 if sent else RETRY_EVERY_S))

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
        """Send what is on disk and not yet in MLflow: all metrics, and files for at most `FILES_S` seconds."""
        with self._reaching() as attempt:
            self._look_for_parent()
            send_metrics(self.store, self.folder, attempt)
            if (began := self._clock()) >= self._files_not_before:
                self._send_files(FILES_S, self._send_all_files, all_are_sent=True)
                self._files_not_before = self._after_a_pause(self._clock() - began, FILES_S)

    def _after_a_pause(self, took: float, limit_s: float) -> float:
        """When files may be sent again after this took so long: training should wait little for a slow store."""
        return self._clock() + (PAUSE_FOR_SLOW * took if took > limit_s else 0.0)

    def _send_all_files(self, attempt: Attempts) -> None:
        send_files(self.store, self.folder, attempt)

    def _send_files(self, limit_s: float, send: Callable[[Attempts], None], *, all_are_sent: bool) -> bool:
        """Send files for at most so long; returns whether none failed and none was left for later."""
        files = Attempts(self._clock, self._clock() + limit_s)
        send(files)
        if files.errors or all_are_sent:
            self._warn_once("cannot be sent files", files.errors)
        return files.go_on and not files.errors

    def finish(self, status: Status) -> None:
        """End the run: send what is missing and the run's files (summary, report, log), and leave nothing RUNNING.

        Nobody waits for a result any more, so all files are sent, however long it takes.
        """
        note_run(self.folder, status, complete=False)
        self._send_all(status)
        self._send_earlier(math.inf)

    def _send_all(self, status: Status, limit_s: float = math.inf) -> None:
        with self._reaching() as attempt:
            self._look_for_parent()
            send_metrics(self.store, self.folder, attempt)
            self.store.end_all(status)
            run_files = self._send_files(limit_s, self._send_run_files, all_are_sent=False)
            files = self._send_files(limit_s, self._send_all_files, all_are_sent=True)
            if run_files and files and not attempt.errors and not lacking(self.folder):
                note_run(self.folder, status, complete=True)

    def _send_run_files(self, attempt: Attempts) -> None:
        send_run_files(self.store, self.folder, attempt)

    # ---- what was deleted in MLflow, and what earlier runs could not send ----

    def _look_for_parent(self) -> None:
        """Restore the parent run if somebody deleted it in MLflow."""
        if not self.store.parent_is_there():
            self._restore()

    def _restore(self) -> None:
        self.store.restore({record.attempt for _, record in stage_records(self.folder)})
        self.store.parent_run()
        self.store.delete_replaced()

    def _send_earlier(self, limit_s: float) -> None:
        """Send what other runs of the workspace could not, except those that somebody deleted in MLflow."""
        for file in [] if self._is_away else self._earlier():
            with suppress(ConfigError):  # written by a version with other fields
                self._of(file)._catch_up(limit_s)

    def _earlier(self) -> list[RunFile]:
        return [file for file in incomplete_runs(self.store.root) if file.name != self.store.name]

    def _folder_of(self, file: RunFile) -> Path:
        return run_folder(self.store.root, file.name)

    def _of(self, file: RunFile) -> Tracking:
        return Tracking(
            self.store.root,
            self._folder_of(file),
            name=file.name,
            uid=file.uid,
            config=stored_config(file),
            warn=self._warn,
            uri=self.store.uri,
            clock=self._clock,
        )

    def _catch_up(self, limit_s: float) -> None:
        """Send what is missing of a run that nobody works on."""
        end_dead_stages(self.folder)
        status = run_record(self.folder).status
        deleted = self.reach(lambda *_: self.store.was_deleted(), away=None)
        if deleted:
            note_run(self.folder, status, complete=True)
        elif deleted is not None:
            self._send_all("KILLED" if status == "RUNNING" else status, limit_s)

    # ---- what others want to know ----

    @property
    def uri(self) -> str:
        return self.store.uri

    @property
    def display_uri(self) -> str:
        """The tracking address without user name and password."""
        return without_password(self.store.uri)

    @property
    def stored_uri(self) -> str:
        """The same as it is written to files: the workspace's own database by its path in the workspace."""
        return OWN_DATABASE if self.store.uri == own_database(self.store.root) else self.display_uri

    @property
    def lack(self) -> str | None:
        """What MLflow lacks of this run and of others of the workspace, in words; None if it has everything."""
        files = {self.store.name: lacking(self.folder)} | {f.name: lacking(self._folder_of(f)) for f in self._earlier()}
        parts = [f"{lack} of run {name}" for name, lack in files.items() if lack]
        return "; ".join(parts) or None

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the parent run, also where only an earlier call reached the server; None until one did."""
        return self.store.ids.get("") or run_record(self.folder).parent_id

    @property
    def experiment_id(self) -> str | None:
        """MLflow's id of the experiment; None until the server was reached."""
        return self.store.experiment_id

    @property
    def run_url(self) -> str | None:
        """URL of the parent run's page; None if there is no server (`regroup ui` starts one), or it was not reached."""
        if self.run_id is None or self.experiment_id is None or not self.store.uri.startswith("http"):
            return None
        page = f"#/experiments/{self.experiment_id}/runs/{self.run_id}?{TRAINING_MODE}"
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
    def _reaching(self) -> Iterator[Attempts]:
        """Attempts for the pieces of work in the block, whose first failure ends it; after one `sync` pauses a while."""
        prepare_environment()
        attempt = Attempts(self._clock)
        with attempt.whole():
            yield attempt
        self._is_away = bool(attempt.errors)
        if self._is_away:
            self._not_before = self._clock() + RETRY_EVERY_S
        self._warn_once("cannot be told", attempt.errors)

    def _warn_once(self, what: str, errors: list[Exception]) -> None:
        """Warn of the first error, unless there was none or it was warned of when there was last one."""
        if errors and what not in self._warned:
            logger.info("MLflow %s", what, exc_info=errors[0])
            self._warn(f"MLflow at {self.display_uri} {what} ({in_words(errors[0])}); it will be sent later")
            self._warned.add(what)
        elif not errors:
            self._warned.discard(what)
