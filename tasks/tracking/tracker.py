"""MLflow, told from files.

A parent run per Regroup run, a child per round, a grandchild per stage, each found again by a tag of ours. All goes
through one client with explicit run ids. What a stage wrote on disk is sent as it comes; what could not be sent, because
the tracking server is away, follows at the next stage's end, at the run's end, or when the run is called again.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

from requests import RequestException
from sqlalchemy.exc import SQLAlchemyError

from configs.disk.files import digest, digest_json, link_or_copy
from configs.schema.config import Config
from tasks.runs import facts as mirror
from tasks.runs.facts import TRACKING, AliasFact, DatasetFact, ModelFact, Outcome, StageFacts, StageTracking, Status
from tasks.runs.versions import program_tags
from tasks.tracking.sending import StageSender
from tasks.tracking.server import local_folder, prepare_environment, tracking_uri, without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

ResultT = TypeVar("ResultT")

SYNC_EVERY_S = 2.0
RETRY_EVERY_S = 30.0
METRICS_PER_REQUEST = 1000
PARAMS_PER_REQUEST = 100
PARAM_LENGTH = 6000
DIGEST_LENGTH = 36
KEY, ATTEMPT, WORKSPACE = "regroup.key", "regroup.attempt", "regroup.workspace"
RUN_FILES = ("run.json", "summary.json", "report.html", "log.txt")


class Tracking:
    """What MLflow knows of one run. No method raises because the tracking server is away."""

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
        self.root = root
        self.folder = folder
        self.name = name
        self.uid = uid
        self.config = config
        self.uri = uri or tracking_uri(root)
        self._warn = warn
        self._warned = False
        self._clock = clock
        self._not_before = 0.0
        self._client: MlflowClient | None = None
        self._experiment_id: str | None = None
        self._ids: dict[str, str] = {}
        """MLflow's run ids by our keys"""
        self._stores: dict[str, Path | None] = {}
        """folder of each run's artifacts, None where they are not local"""
        self._tags: dict[str, str] = {}
        self._current: Path | None = None

    # ---- the life of a run ----

    def start(self, tags: dict[str, str] | None = None) -> None:
        """Runs that a dead process left RUNNING become KILLED; the parent run is found or made; what is missing is sent."""
        self._tags = {"regroup.config_digest": digest_json(self.config.model_dump(mode="json"))} | (tags or {})
        with self._reaching():
            self._sweep()
            parent = self._parent_id()
            self._connected.update_run(parent, status="RUNNING")
            self.set_tags(parent, self._tags)
            self._send_missing()

    def start_stage(self, folder: Path, facts: StageFacts) -> None:
        """A new attempt at a stage; what MLflow has of an earlier attempt is deleted."""
        facts = facts.model_copy(update={"tags": self._tags | facts.tags})
        mirror.save(folder / TRACKING, StageTracking(facts=facts))
        self._current = folder
        with self._reaching():
            self._revive(facts.key)
            self._send_stage(folder)

    def sync(self) -> None:
        """Send what the current stage wrote, at most every two seconds."""
        if self._current is None or self._clock() < self._not_before:
            return
        self._not_before = self._clock() + SYNC_EVERY_S
        with self._reaching():
            self._send_stage(self._current)

    def end_stage(
        self, folder: Path, status: Status, outcome: Outcome | None = None, *, ended_ms: int | None = None
    ) -> None:
        """The current attempt ended; everything that is missing, of earlier stages too, is sent."""
        self._current = None
        if (record := mirror.load(folder / TRACKING, StageTracking)) is None:
            return
        ended = {"status": status, "ended_ms": ended_ms or int(time.time() * 1000), "outcome": outcome or Outcome()}
        mirror.save(folder / TRACKING, record.model_copy(update=ended))
        self.send_missing()

    def stage_stands(self, folder: Path, facts: StageFacts, outcome: Callable[[], Outcome], ended_ms: int) -> None:
        """A stage was finished by an earlier process, which may have died before it could write down so."""
        record = mirror.load(folder / TRACKING, StageTracking)
        if record is not None and record.status == "FINISHED":
            return
        if record is None:
            facts = facts.model_copy(update={"tags": self._tags | facts.tags})
            mirror.save(folder / TRACKING, StageTracking(facts=facts))
        self.end_stage(folder, "FINISHED", outcome(), ended_ms=ended_ms)

    def send_missing(self) -> None:
        """Send what is on disk and not yet in MLflow."""
        with self._reaching():
            self._send_missing()

    def finish(self, status: Status) -> None:
        """The run ended. The run's own files (summary, report, log) become artifacts; nothing is left RUNNING."""
        with self._reaching():
            self._send_missing()
            parent = self._parent_id()
            self._send_run_files(parent, status)
            for run in self._search(f"tags.`regroup.uid` = '{self.uid}' and attributes.status = 'RUNNING'"):
                self._connected.set_terminated(run.info.run_id, status)
            self._connected.set_terminated(parent, status)

    # ---- what others want to know ----

    @property
    def display_uri(self) -> str:
        """The tracking address without user name and password."""
        return without_password(self.uri)

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the parent run; None while the server was never reached."""
        return self._ids.get("")

    @property
    def experiment_id(self) -> str | None:
        return self._experiment_id

    @property
    def run_url(self) -> str | None:
        """Address of the parent run's page; None where the store is a file (`regroup ui` shows that)."""
        if self.run_id is None or not self.uri.startswith("http"):
            return None
        page = f"#/experiments/{self._experiment_id}/runs/{self.run_id}?workflowType=machine_learning"
        return f"{self.display_uri.rstrip('/')}/{page}"

    def stage_run_id(self, folder: Path) -> str | None:
        """MLflow's id of a stage's run; None while the server was not reached."""
        record = mirror.load(folder / TRACKING, StageTracking)
        return record.run_id if record else None

    # ---- reaching the server ----

    def reach(self, work: Callable[[MlflowClient, str], ResultT], *, away: ResultT) -> ResultT:
        """What `work(client, experiment id)` returns, or `away` where the tracking server cannot be reached."""
        found = away
        with self._reaching():
            found = work(self._connected, self._experiment())
        return found

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """A block that may end early because the server is away: then one warning, and a pause for `sync`."""
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

    @property
    def _connected(self) -> MlflowClient:
        if self._client is None:
            from mlflow import MlflowClient

            registry = os.environ.get("MLFLOW_REGISTRY_URI") or self.uri
            self._client = MlflowClient(tracking_uri=self.uri, registry_uri=registry)
        return self._client

    def _experiment(self) -> str:
        if self._experiment_id is None:
            client, name = self._connected, self.config.tracking.experiment
            found = client.get_experiment_by_name(name)
            if found is None:
                local = None if self.uri.startswith("http") else (self.root.absolute() / "mlartifacts").as_uri()
                self._experiment_id = client.create_experiment(name, artifact_location=local)
            else:
                if found.lifecycle_stage == "deleted":
                    client.restore_experiment(found.experiment_id)
                self._experiment_id = found.experiment_id
        assert self._experiment_id is not None
        return self._experiment_id

    def _search(self, filter_string: str) -> list[MlflowRun]:
        found = self._connected.search_runs([self._experiment()], filter_string, max_results=1000)
        return list(found)

    def _sweep(self) -> None:
        """This process holds the workspace, so whatever of it is RUNNING belongs to a dead one."""
        for run in self._search(f"tags.`{WORKSPACE}` = '{self._workspace}' and attributes.status = 'RUNNING'"):
            self._connected.set_terminated(run.info.run_id, "KILLED")

    @property
    def _workspace(self) -> str:
        return f"{socket.gethostname()}:{self.root.absolute()}".replace("'", "_")

    # ---- the tree of runs ----

    def _parent_id(self) -> str:
        known = self._ids.get("")
        if known is None:
            known = self._find_or_create("", self.name, parent=None)
            self.send_params(known, self._run_params())
        return known

    def _round_id(self, key: str) -> str:
        return self._find_or_create(key, key.replace("_", " "), parent=self._parent_id())

    def _find_or_create(self, key: str, run_name: str, *, parent: str | None) -> str:
        """Id of the run with our key; `key` is "" for the parent run, `round_001` for a round."""
        if key not in self._ids:
            found = self._search(f"tags.`{KEY}` = '{self._full(key)}'")
            self._ids[key] = found[0].info.run_id if found else self._create(key, run_name, parent, {}, None)
        return self._ids[key]

    def _create(self, key: str, run_name: str, parent: str | None, tags: dict[str, str], started_ms: int | None) -> str:
        ours = {KEY: self._full(key), "regroup.uid": self.uid, "regroup.run": self.name, WORKSPACE: self._workspace}
        tags = program_tags() | self._tags | ours | tags
        if parent is not None:
            tags["mlflow.parentRunId"] = parent
        run = self._connected.create_run(self._experiment(), start_time=started_ms, tags=tags, run_name=run_name)
        return str(run.info.run_id)

    def _full(self, key: str) -> str:
        return f"{self.uid}/{key}" if key else self.uid

    def _run_params(self) -> dict[str, str]:
        """MLflow's parameters may not change, so those that may when a run goes on are left out."""
        from tasks.running.run import FREE_TO_CHANGE, flatten

        whole = flatten(self.config.model_dump(mode="json"))
        return {key: str(value) for key, value in whole if key != "rounds" and not FREE_TO_CHANGE.match(key)}

    def _revive(self, key: str) -> None:
        """A round that goes on is RUNNING again."""
        head, _, rest = key.partition("/")
        if rest:
            self._connected.update_run(self._round_id(head), status="RUNNING")

    # ---- sending ----

    def _send_missing(self) -> None:
        for folder in mirror.stage_folders(self.folder):
            self._send_stage(folder)
        for path in sorted(self.folder.glob(f"round_*/{mirror.ROUND_FILE}")):
            self._send_round(path.parent)

    def _send_stage(self, folder: Path) -> None:
        record = mirror.load(folder / TRACKING, StageTracking)
        if record is None:
            return
        record = record.under(self._parent_id())
        if record.done:
            return
        sender = StageSender(self, folder, record)
        sender.describe()
        sender.send_journal()
        sender.send_rollouts()
        if sender.record.status != "RUNNING":
            sender.finish()

    def stage_run(self, record: StageTracking) -> str:
        """Id of the attempt's run; runs and model versions of other attempts at the stage are deleted."""
        found = None
        for run in self._search(f"tags.`{KEY}` = '{self._full(record.facts.key)}'"):
            if run.data.tags.get(ATTEMPT) == record.attempt:
                found = str(run.info.run_id)
            else:
                if run.info.status == "RUNNING":
                    self._connected.set_terminated(run.info.run_id, "KILLED")
                self._connected.delete_run(run.info.run_id)
        if found is not None:
            return found
        head, _, rest = record.facts.key.partition("/")
        parent = self._round_id(head) if rest else self._parent_id()
        tags = record.facts.tags | {ATTEMPT: record.attempt}
        return self._create(record.facts.key, rest or head, parent, tags, record.facts.started_ms)

    def _send_round(self, folder: Path) -> None:
        fact = mirror.load(folder / mirror.ROUND_FILE, mirror.RoundFile)
        sent = mirror.load(folder / TRACKING, mirror.RoundTracking)
        parent = self._parent_id()
        if fact is None or (sent and (sent.parent_id, sent.ended_ms) == (parent, fact.ended_ms)):
            return
        run_id = self._round_id(folder.name)
        for target in (parent, run_id):
            self.send_metrics(target, [(key, fact.round, value, fact.ended_ms) for key, value in fact.metrics.items()])
        for alias in fact.aliases:
            self._send_alias(alias)
        self._connected.set_terminated(run_id, "FINISHED", end_time=fact.ended_ms)
        mirror.save(folder / TRACKING, mirror.RoundTracking(parent_id=parent, run_id=run_id, ended_ms=fact.ended_ms))

    def send_metrics(self, run_id: str, rows: list[tuple[str, int, float, int]]) -> None:
        """Rows of (key, step, value, timestamp in ms). Sending a row twice leaves one."""
        from mlflow.entities import Metric

        metrics = [Metric(key, value, timestamp_ms, step) for key, step, value, timestamp_ms in rows]
        for batch in mirror.in_batches(metrics, METRICS_PER_REQUEST):
            self._connected.log_batch(run_id, metrics=batch, synchronous=True)

    def send_params(self, run_id: str, params: dict[str, str]) -> None:
        from mlflow.entities import Param

        items = [Param(key, value[:PARAM_LENGTH]) for key, value in params.items()]
        for batch in mirror.in_batches(items, PARAMS_PER_REQUEST):
            self._connected.log_batch(run_id, params=batch, synchronous=True)

    def set_tags(self, run_id: str, tags: dict[str, str]) -> None:
        from mlflow.entities import RunTag

        self._connected.log_batch(run_id, tags=[RunTag(*item) for item in tags.items()], synchronous=True)

    def log_datasets(self, run_id: str, facts: list[DatasetFact]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = []
        for fact in facts:
            profile = json.dumps({"num_rows": fact.num_rows})
            dataset = Dataset(fact.name, fact.digest[:DIGEST_LENGTH], "local", fact.source, profile=profile)
            inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", fact.context)]))
        if inputs:
            self._connected.log_inputs(run_id, inputs)

    def end_run(self, run_id: str, status: Status, ended_ms: int | None = None) -> None:
        self._connected.set_terminated(run_id, status, end_time=ended_ms)

    def _send_run_files(self, parent: str, status: Status) -> None:
        path = self.folder / TRACKING
        before = mirror.load(path, mirror.RunTracking)
        sent = before.files if before and before.parent_id == parent else {}
        files = {name: digest(self.folder / name) for name in RUN_FILES if (self.folder / name).exists()}
        for name, value in files.items():
            if sent.get(name) != value:
                self.put(parent, self.folder / name, name, copy=True)
        mirror.save(path, mirror.RunTracking(parent_id=parent, status=status, files=files))

    def put(self, run_id: str, source: Path, name: str, *, copy: bool = False) -> None:
        """`source` as artifact `name`; hard-linked where artifacts lie in a local folder, unless it is to be a copy."""
        if run_id not in self._stores:
            self._stores[run_id] = local_folder(self._connected.get_run(run_id).info.artifact_uri)
        store = self._stores[run_id]
        if store is not None and not copy:
            link_or_copy(source.resolve(), store / name)
            return
        folder = str(PurePosixPath(name).parent)
        self._connected.log_artifact(run_id, str(source), None if folder == "." else folder)

    # ---- the registry ----

    def register(self, run_id: str, model: ModelFact, key: str, attempt: str) -> None:
        """A version of a registered model for a stage's attempt; those of other attempts go."""
        client = self._connected
        if not client.search_registered_models(f"name = '{model.name}'"):
            client.create_registered_model(model.name)
        version = None
        for known in self._versions(model.name, key):
            if known.tags.get(ATTEMPT) == attempt and known.run_id == run_id:
                version = known.version
            else:
                client.delete_model_version(model.name, known.version)
        if version is None:
            source = f"runs:/{run_id}/{model.folder}"
            tags = model.tags | {KEY: self._full(key), ATTEMPT: attempt}
            made = client.create_model_version(model.name, source, run_id, tags=tags, await_creation_for=0)
            version = made.version
        client.set_registered_model_alias(model.name, model.alias, str(version))

    def _versions(self, name: str, key: str) -> list[Any]:
        found = self._connected.search_model_versions(f"name = '{name}'", max_results=1000)
        return [version for version in found if version.tags.get(KEY) == self._full(key)]

    def _send_alias(self, alias: AliasFact) -> None:
        if alias.key is None:
            if self._connected.search_registered_models(f"name = '{alias.name}'"):
                self._connected.delete_registered_model_alias(alias.name, alias.alias)
            return
        for version in self._versions(alias.name, alias.key):
            self._connected.set_registered_model_alias(alias.name, alias.alias, str(version.version))
