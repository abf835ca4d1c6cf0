"""One run in MLflow: its experiment, its tree of runs, metrics, parameters and artifacts.

There is a parent run per Regroup run, a child per round and a grandchild per stage, each found again by a tag of ours.
All calls go through one client with explicit run ids. Errors of the client, for instance while the server is away, are
not caught here.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Collection
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from configs.disk.files import link_or_copy
from configs.schema.config import Config
from configs.schema.operational import flatten, without_operational
from tasks.runs.facts import DatasetFact, Status
from tasks.runs.follow_on import runs_of_chain
from tasks.runs.versions import program_tags
from tasks.tracking.aliases import Aliases
from tasks.tracking.database import make_ready
from tasks.tracking.outbox import StageTracking, in_batches
from tasks.tracking.registry import ATTEMPT, KEY, WORKSPACE, Registry, pages
from tasks.tracking.server import local_folder, tracking_uri, uploading

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

METRICS_PER_REQUEST = 1000
PARAMS_PER_REQUEST = 100
PARAM_LENGTH = 6000
DIGEST_LENGTH = 36
RUNS_PER_PAGE = 1000
PARENT = "mlflow.parentRunId"
REPLACED = "regroup.replaced"
"""tag of a run that we deleted since another took its place"""


class Store:
    """Reads and writes what MLflow holds of one run."""

    def __init__(
        self,
        root: Path,
        *,
        name: str,
        uid: str,
        config: Config,
        uri: str | None = None,
        warn: Callable[[str], None],
    ) -> None:
        self.root = root
        self.name = name
        self.uid = uid
        self.config = config
        self.uri = uri or tracking_uri(root)
        self.tags: dict[str, str] = {}
        """tags of every MLflow run that is created from now on"""
        self.ids: dict[str, str] = {}
        """MLflow's run ids by our keys: an empty string for the parent run, `round_001` for a round"""
        self.aliases_set: Aliases = {}
        """what the aliases of registered models were set to by this process"""
        self.experiment_id: str | None = None
        """None until the server was first reached"""
        self._warn = warn
        self._client: MlflowClient | None = None
        self._registry: Registry | None = None
        self._folders: dict[str, Path | None] = {}
        """folder of each run's artifacts by run id, None if they are not local"""

    @property
    def client(self) -> MlflowClient:
        if self._client is None:
            make_ready(self.uri, self._warn)
            from mlflow import MlflowClient

            registry = os.environ.get("MLFLOW_REGISTRY_URI") or self.uri
            self._client = MlflowClient(tracking_uri=self.uri, registry_uri=registry)
        return self._client

    @property
    def registry(self) -> Registry:
        """The registered models of the run's chain."""
        if self._registry is None:
            uids = [file.uid for file in runs_of_chain(self.root, self.name)] or [self.uid]
            self._registry = Registry(self.client, chain_ids=uids, workspace=self._workspace)
        return self._registry

    def experiment(self) -> str:
        """Id of the configured experiment, which is created if missing and restored if deleted."""
        if self.experiment_id is None:
            name = self.config.tracking.experiment
            experiment = self.client.get_experiment_by_name(name)
            if experiment is None:
                artifact_uri = None if self.uri.startswith("http") else (self.root.absolute() / "mlartifacts").as_uri()
                self.experiment_id = self.client.create_experiment(name, artifact_location=artifact_uri)
            else:
                if experiment.lifecycle_stage == "deleted":
                    self.client.restore_experiment(experiment.experiment_id)
                self.experiment_id = experiment.experiment_id
        assert self.experiment_id is not None
        return self.experiment_id

    def search(self, filter_string: str, *, deleted: bool = False) -> list[MlflowRun]:
        """The runs of the experiment that fit, or those of its deleted ones."""
        from mlflow.entities import ViewType

        view = ViewType.DELETED_ONLY if deleted else ViewType.ACTIVE_ONLY
        experiments = [self.experiment()]
        return pages(
            lambda token: self.client.search_runs(experiments, filter_string, view, RUNS_PER_PAGE, page_token=token)
        )

    # ---- the tree of runs ----

    def end_runs_of_dead_processes(self) -> None:
        """Set RUNNING runs of this workspace to KILLED: this process holds its lock, so those processes are dead."""
        for run in self.search(f"tags.`{WORKSPACE}` = '{self._workspace}' and attributes.status = 'RUNNING'"):
            self.client.set_terminated(run.info.run_id, "KILLED")

    @property
    def _workspace(self) -> str:
        return f"{socket.gethostname()}:{self.root.absolute()}".replace("'", "_")

    def was_deleted(self) -> bool:
        """Whether somebody deleted the parent run in MLflow."""
        return not self._named("") and bool(self._named("", deleted=True))

    def restore(self, attempts: Collection[str]) -> None:
        """Restore what somebody deleted of this run in MLflow: parent, rounds, and the stages' runs of `attempts`."""
        self.ids.clear()
        for run in self.search(f"tags.`regroup.uid` = '{self.uid}'", deleted=True):
            if REPLACED not in run.data.tags and run.data.tags.get(ATTEMPT) in {None, *attempts}:
                self.client.restore_run(run.info.run_id)

    def parent_is_there(self) -> bool:
        """Whether the parent run is known and not deleted. Raises what the client raises if the server is away."""
        from mlflow.exceptions import MlflowException

        if (run_id := self.ids.get("")) is None:
            return False
        try:
            return str(self.client.get_run(run_id).info.lifecycle_stage) == "active"
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise

    def parent_run(self) -> str:
        """Id of the parent run, which is found or created."""
        run_id = self.ids.get("")
        if run_id is None:
            run_id = self._find_or_create("", self.name, parent=None)
            self.send_params(run_id, self._run_params())
        return run_id

    def round_run(self, key: str) -> str:
        """Id of a round's run, which is found or created; `key` is for instance `round_001`."""
        return self._find_or_create(key, key.replace("_", " "), parent=self.parent_run())

    def replace_run(self, key: str) -> str:
        """Put a new run in the place of the parent's or a round's, whose metrics are out of date, and return its id.

        Metrics cannot be taken back. The runs under the old one move to the new one.
        """
        for run in self._named(key):
            self._mark_replaced(run)
        self.ids.pop(key, None)
        new_id = self.round_run(key) if key else self.parent_run()
        self.delete_replaced()
        return new_id

    def delete_replaced(self) -> None:
        """Delete the runs that are marked as replaced, once the runs under them hang under what took their place.

        A process that was killed may have left some.
        """
        for run in self.search(f"tags.`regroup.uid` = '{self.uid}' and tags.`{REPLACED}` = 'true'"):
            for child in self.search(f"tags.`{PARENT}` = '{run.info.run_id}'"):
                key = run.data.tags[KEY].removeprefix(self.uid).removeprefix("/")
                self._under(child, self.round_run(key) if key else self.parent_run())
            self.client.delete_run(run.info.run_id)

    def _mark_replaced(self, run: MlflowRun) -> None:
        if run.info.status == "RUNNING":
            self.client.set_terminated(run.info.run_id, "KILLED")
        self.client.set_tag(run.info.run_id, REPLACED, "true")

    def stage_run(self, record: StageTracking) -> str:
        """Id of the run of a stage's attempt, which is found or created; runs of other attempts are deleted."""
        run_id, head, rest = None, *record.facts.key.partition("/")[::2]
        parent = self.round_run(head) if rest else self.parent_run()
        for run in self._named(record.facts.key):
            if run.data.tags.get(ATTEMPT) == record.attempt:
                run_id = self._under(run, parent)
            else:
                self._mark_replaced(run)
                self.client.delete_run(run.info.run_id)
        if run_id is not None:
            return run_id
        tags = record.facts.tags | {ATTEMPT: record.attempt}
        return self._create(record.facts.key, rest or head, parent, tags, record.facts.started_ms)

    def revive_round(self, key: str) -> None:
        """Set the round of the stage `key` to RUNNING again."""
        head, _, rest = key.partition("/")
        if rest:
            self.client.update_run(self.round_run(head), status="RUNNING")

    def _find_or_create(self, key: str, run_name: str, *, parent: str | None) -> str:
        """Id of the run with our key; `key` is "" for the parent run, `round_001` for a round."""
        if key not in self.ids:
            runs = self._named(key)
            self.ids[key] = self._under(runs[0], parent) if runs else self._create(key, run_name, parent, {}, None)
        return self.ids[key]

    def _named(self, key: str, *, deleted: bool = False) -> list[MlflowRun]:
        found = self.search(f"tags.`{KEY}` = '{self.full_key(key)}'", deleted=deleted)
        return [run for run in found if REPLACED not in run.data.tags]

    def _under(self, run: MlflowRun, parent: str | None) -> str:
        """Id of a run that was found, once it hangs under `parent`."""
        if parent is not None and run.data.tags.get(PARENT) != parent:
            self.client.set_tag(run.info.run_id, PARENT, parent)
        return str(run.info.run_id)

    def _create(self, key: str, run_name: str, parent: str | None, tags: dict[str, str], started_ms: int | None) -> str:
        tags = program_tags() | self.tags | self._our_tags(key) | tags
        if parent is not None:
            tags[PARENT] = parent
        run = self.client.create_run(self.experiment(), start_time=started_ms, tags=tags, run_name=run_name)
        return str(run.info.run_id)

    def _our_tags(self, key: str) -> dict[str, str]:
        return {
            KEY: self.full_key(key),
            "regroup.uid": self.uid,
            "regroup.run": self.name,
            WORKSPACE: self._workspace,
        }

    def full_key(self, key: str) -> str:
        return f"{self.uid}/{key}" if key else self.uid

    def version_tags(self, record: StageTracking) -> dict[str, str]:
        """The tags of the model that a stage's attempt made: run, round, workspace, and what it is found by."""
        round_index = record.facts.tags.get("regroup.round")
        of_round = {} if round_index is None else {"regroup.round": round_index}
        return self._our_tags(record.facts.key) | of_round | {ATTEMPT: record.attempt}

    def _run_params(self) -> dict[str, str]:
        """The parent run's parameters. MLflow's cannot change, so fields that a resumed run may change are left out."""
        fields = flatten(without_operational(self.config))
        return {key: str(value) for key, value in fields if key != "rounds"}

    # ---- what a run holds ----

    def send_metrics(self, run_id: str, rows: list[tuple[str, int, float, int]]) -> None:
        """Send rows of (key, step, value, timestamp in ms). A row that is sent twice is stored once."""
        from mlflow.entities import Metric

        metrics = [Metric(key, value, timestamp_ms, step) for key, step, value, timestamp_ms in rows]
        for batch in in_batches(metrics, METRICS_PER_REQUEST):
            self.client.log_batch(run_id, metrics=batch, synchronous=True)

    def send_params(self, run_id: str, params: dict[str, str]) -> None:
        from mlflow.entities import Param

        items = [Param(key, value[:PARAM_LENGTH]) for key, value in params.items()]
        for batch in in_batches(items, PARAMS_PER_REQUEST):
            self.client.log_batch(run_id, params=batch, synchronous=True)

    def set_tags(self, run_id: str, tags: dict[str, str]) -> None:
        from mlflow.entities import RunTag

        self.client.log_batch(run_id, tags=[RunTag(*item) for item in tags.items()], synchronous=True)

    def log_datasets(self, run_id: str, facts: list[DatasetFact]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = []
        for fact in facts:
            profile = json.dumps({"num_rows": fact.num_rows})
            dataset = Dataset(fact.name, fact.digest[:DIGEST_LENGTH], "local", fact.source, profile=profile)
            inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", fact.context)]))
        if inputs:
            self.client.log_inputs(run_id, inputs)

    def put(self, run_id: str, source: Path, name: str, *, copy: bool = False) -> None:
        """Store `source` as artifact `name`: a hard link if artifacts are in a local folder and `copy` is False."""
        if run_id not in self._folders:
            self._folders[run_id] = local_folder(self.client.get_run(run_id).info.artifact_uri)
        folder = self._folders[run_id]
        if folder is not None and not copy:
            link_or_copy(source.resolve(), folder / name)
            return
        path = str(PurePosixPath(name).parent)
        with uploading():
            self.client.log_artifact(run_id, str(source), None if path == "." else path)

    def end_run(self, run_id: str, status: Status, ended_ms: int | None = None) -> None:
        self.client.set_terminated(run_id, status, end_time=ended_ms)

    def end_all(self, status: Status) -> None:
        """Give that status to the parent run and to every other run of ours that is still RUNNING."""
        for run in self.search(f"tags.`regroup.uid` = '{self.uid}' and attributes.status = 'RUNNING'"):
            self.client.set_terminated(run.info.run_id, status)
        self.client.set_terminated(self.parent_run(), status)
