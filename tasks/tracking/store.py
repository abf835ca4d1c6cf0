"""One run in MLflow: its experiment, its tree of runs, metrics, parameters, artifacts and registered models.

There is a parent run per Regroup run, a child per round and a grandchild per stage, each found again by a tag of ours.
All calls go through one client with explicit run ids. Errors of the client, for instance while the server is away, are
not caught here.
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from configs.disk.files import link_or_copy
from configs.schema.config import Config
from configs.schema.operational import flatten, without_operational
from tasks.runs.facts import AliasFact, DatasetFact, ModelFact, Status
from tasks.runs.versions import program_tags
from tasks.tracking.outbox import StageTracking, in_batches
from tasks.tracking.server import local_folder, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

METRICS_PER_REQUEST = 1000
PARAMS_PER_REQUEST = 100
PARAM_LENGTH = 6000
DIGEST_LENGTH = 36
KEY, ATTEMPT, WORKSPACE = "regroup.key", "regroup.attempt", "regroup.workspace"


class Store:
    """Reads and writes what MLflow holds of one run."""

    def __init__(self, root: Path, *, name: str, uid: str, config: Config, uri: str | None = None) -> None:
        self.root = root
        self.name = name
        self.uid = uid
        self.config = config
        self.uri = uri or tracking_uri(root)
        self.tags: dict[str, str] = {}
        """tags of every MLflow run that is created from now on"""
        self.ids: dict[str, str] = {}
        """MLflow's run ids by our keys: an empty string for the parent run, `round_001` for a round"""
        self.experiment_id: str | None = None
        """None until the server was first reached"""
        self._client: MlflowClient | None = None
        self._folders: dict[str, Path | None] = {}
        """folder of each run's artifacts by run id, None if they are not local"""

    @property
    def client(self) -> MlflowClient:
        if self._client is None:
            from mlflow import MlflowClient

            registry = os.environ.get("MLFLOW_REGISTRY_URI") or self.uri
            self._client = MlflowClient(tracking_uri=self.uri, registry_uri=registry)
        return self._client

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

    def search(self, filter_string: str) -> list[MlflowRun]:
        runs = self.client.search_runs([self.experiment()], filter_string, max_results=1000)
        return list(runs)

    # ---- the tree of runs ----

    def end_runs_of_dead_processes(self) -> None:
        """Set RUNNING runs of this workspace to KILLED: this process holds its lock, so those processes are dead."""
        for run in self.search(f"tags.`{WORKSPACE}` = '{self._workspace}' and attributes.status = 'RUNNING'"):
            self.client.set_terminated(run.info.run_id, "KILLED")

    @property
    def _workspace(self) -> str:
        return f"{socket.gethostname()}:{self.root.absolute()}".replace("'", "_")

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

    def stage_run(self, record: StageTracking) -> str:
        """Id of the run of a stage's attempt, which is found or created; runs of other attempts are deleted."""
        run_id = None
        for run in self.search(f"tags.`{KEY}` = '{self._full(record.facts.key)}'"):
            if run.data.tags.get(ATTEMPT) == record.attempt:
                run_id = str(run.info.run_id)
            else:
                if run.info.status == "RUNNING":
                    self.client.set_terminated(run.info.run_id, "KILLED")
                self.client.delete_run(run.info.run_id)
        if run_id is not None:
            return run_id
        head, _, rest = record.facts.key.partition("/")
        parent = self.round_run(head) if rest else self.parent_run()
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
            runs = self.search(f"tags.`{KEY}` = '{self._full(key)}'")
            self.ids[key] = runs[0].info.run_id if runs else self._create(key, run_name, parent, {}, None)
        return self.ids[key]

    def _create(self, key: str, run_name: str, parent: str | None, tags: dict[str, str], started_ms: int | None) -> str:
        ours = {KEY: self._full(key), "regroup.uid": self.uid, "regroup.run": self.name, WORKSPACE: self._workspace}
        tags = program_tags() | self.tags | ours | tags
        if parent is not None:
            tags["mlflow.parentRunId"] = parent
        run = self.client.create_run(self.experiment(), start_time=started_ms, tags=tags, run_name=run_name)
        return str(run.info.run_id)

    def _full(self, key: str) -> str:
        return f"{self.uid}/{key}" if key else self.uid

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
        self.client.log_artifact(run_id, str(source), None if path == "." else path)

    def end_run(self, run_id: str, status: Status, ended_ms: int | None = None) -> None:
        self.client.set_terminated(run_id, status, end_time=ended_ms)

    def end_all(self, status: Status) -> None:
        """Give that status to the parent run and to every other run of ours that is still RUNNING."""
        for run in self.search(f"tags.`regroup.uid` = '{self.uid}' and attributes.status = 'RUNNING'"):
            self.client.set_terminated(run.info.run_id, status)
        self.client.set_terminated(self.parent_run(), status)

    # ---- the registry ----

    def register(self, run_id: str, model: ModelFact, key: str, attempt: str) -> None:
        """Register the model of a stage's attempt and set its alias; versions of other attempts are deleted."""
        if not self.client.search_registered_models(f"name = '{model.name}'"):
            self.client.create_registered_model(model.name)
        version = None
        for existing in self._versions(model.name, key):
            if existing.tags.get(ATTEMPT) == attempt and existing.run_id == run_id:
                version = existing.version
            else:
                self.client.delete_model_version(model.name, existing.version)
        if version is None:
            source = f"runs:/{run_id}/{model.folder}"
            tags = model.tags | {KEY: self._full(key), ATTEMPT: attempt}
            created = self.client.create_model_version(model.name, source, run_id, tags=tags, await_creation_for=0)
            version = created.version
        self.client.set_registered_model_alias(model.name, model.alias, str(version))

    def set_alias(self, alias: AliasFact) -> None:
        """Point an alias at the version that a stage made, or remove it if its `key` is None."""
        if alias.key is None:
            if self.client.search_registered_models(f"name = '{alias.name}'"):
                self.client.delete_registered_model_alias(alias.name, alias.alias)
            return
        for version in self._versions(alias.name, alias.key):
            self.client.set_registered_model_alias(alias.name, alias.alias, str(version.version))

    def _versions(self, name: str, key: str) -> list[Any]:
        versions = self.client.search_model_versions(f"name = '{name}'", max_results=1000)
        return [version for version in versions if version.tags.get(KEY) == self._full(key)]
