"""One run in MLflow's words: its experiment, its tree of runs, metrics, parameters, artifacts and registered models.

A parent run per Regroup run, a child per round, a grandchild per stage, each found again by a tag of ours. All goes through one
client with explicit run ids. Whatever the client raises where the server is away leaves here as it is.
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
    """What MLflow holds of one run."""

    def __init__(self, root: Path, *, name: str, uid: str, config: Config, uri: str | None = None) -> None:
        self.root = root
        self.name = name
        self.uid = uid
        self.config = config
        self.uri = uri or tracking_uri(root)
        self.tags: dict[str, str] = {}
        """of every run that is made from now on"""
        self.ids: dict[str, str] = {}
        """MLflow's run ids by our keys"""
        self.experiment_id: str | None = None
        """None before the server was first reached"""
        self._client: MlflowClient | None = None
        self._folders: dict[str, Path | None] = {}
        """folder of each run's artifacts, None where they are not local"""

    @property
    def client(self) -> MlflowClient:
        if self._client is None:
            from mlflow import MlflowClient

            registry = os.environ.get("MLFLOW_REGISTRY_URI") or self.uri
            self._client = MlflowClient(tracking_uri=self.uri, registry_uri=registry)
        return self._client

    def experiment(self) -> str:
        """Id of the configured experiment, which is made, or restored, where need be."""
        if self.experiment_id is None:
            name = self.config.tracking.experiment
            found = self.client.get_experiment_by_name(name)
            if found is None:
                local = None if self.uri.startswith("http") else (self.root.absolute() / "mlartifacts").as_uri()
                self.experiment_id = self.client.create_experiment(name, artifact_location=local)
            else:
                if found.lifecycle_stage == "deleted":
                    self.client.restore_experiment(found.experiment_id)
                self.experiment_id = found.experiment_id
        assert self.experiment_id is not None
        return self.experiment_id

    def search(self, filter_string: str) -> list[MlflowRun]:
        found = self.client.search_runs([self.experiment()], filter_string, max_results=1000)
        return list(found)

    # ---- the tree of runs ----

    def end_runs_of_dead_processes(self) -> None:
        """This process holds the workspace, so whatever of it is RUNNING belongs to a dead one."""
        for run in self.search(f"tags.`{WORKSPACE}` = '{self._workspace}' and attributes.status = 'RUNNING'"):
            self.client.set_terminated(run.info.run_id, "KILLED")

    @property
    def _workspace(self) -> str:
        return f"{socket.gethostname()}:{self.root.absolute()}".replace("'", "_")

    def parent_run(self) -> str:
        """Id of the run's own run in MLflow."""
        known = self.ids.get("")
        if known is None:
            known = self._find_or_create("", self.name, parent=None)
            self.send_params(known, self._run_params())
        return known

    def round_run(self, key: str) -> str:
        """Id of a round's run; `key` is `round_001`."""
        return self._find_or_create(key, key.replace("_", " "), parent=self.parent_run())

    def stage_run(self, record: StageTracking) -> str:
        """Id of the run of a stage's attempt; runs of other attempts at the stage are deleted."""
        found = None
        for run in self.search(f"tags.`{KEY}` = '{self._full(record.facts.key)}'"):
            if run.data.tags.get(ATTEMPT) == record.attempt:
                found = str(run.info.run_id)
            else:
                if run.info.status == "RUNNING":
                    self.client.set_terminated(run.info.run_id, "KILLED")
                self.client.delete_run(run.info.run_id)
        if found is not None:
            return found
        head, _, rest = record.facts.key.partition("/")
        parent = self.round_run(head) if rest else self.parent_run()
        tags = record.facts.tags | {ATTEMPT: record.attempt}
        return self._create(record.facts.key, rest or head, parent, tags, record.facts.started_ms)

    def revive_round(self, key: str) -> None:
        """The round of the stage `key` is RUNNING again."""
        head, _, rest = key.partition("/")
        if rest:
            self.client.update_run(self.round_run(head), status="RUNNING")

    def _find_or_create(self, key: str, run_name: str, *, parent: str | None) -> str:
        """Id of the run with our key; `key` is "" for the parent run, `round_001` for a round."""
        if key not in self.ids:
            found = self.search(f"tags.`{KEY}` = '{self._full(key)}'")
            self.ids[key] = found[0].info.run_id if found else self._create(key, run_name, parent, {}, None)
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
        """MLflow's parameters may not change, so those that may when a run goes on are left out."""
        deciding = flatten(without_operational(self.config))
        return {key: str(value) for key, value in deciding if key != "rounds"}

    # ---- what a run holds ----

    def send_metrics(self, run_id: str, rows: list[tuple[str, int, float, int]]) -> None:
        """Rows of (key, step, value, timestamp in ms). Sending a row twice leaves one."""
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
        """`source` as artifact `name`; hard-linked where artifacts lie in a local folder, unless it is to be a copy."""
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
        """The parent run, and whatever of this run is still RUNNING, gets that status."""
        for run in self.search(f"tags.`regroup.uid` = '{self.uid}' and attributes.status = 'RUNNING'"):
            self.client.set_terminated(run.info.run_id, status)
        self.client.set_terminated(self.parent_run(), status)

    # ---- the registry ----

    def register(self, run_id: str, model: ModelFact, key: str, attempt: str) -> None:
        """A version of a registered model for a stage's attempt; those of other attempts are deleted."""
        if not self.client.search_registered_models(f"name = '{model.name}'"):
            self.client.create_registered_model(model.name)
        version = None
        for known in self._versions(model.name, key):
            if known.tags.get(ATTEMPT) == attempt and known.run_id == run_id:
                version = known.version
            else:
                self.client.delete_model_version(model.name, known.version)
        if version is None:
            source = f"runs:/{run_id}/{model.folder}"
            tags = model.tags | {KEY: self._full(key), ATTEMPT: attempt}
            made = self.client.create_model_version(model.name, source, run_id, tags=tags, await_creation_for=0)
            version = made.version
        self.client.set_registered_model_alias(model.name, model.alias, str(version))

    def set_alias(self, alias: AliasFact) -> None:
        """Point an alias at the version that a stage made, or remove it."""
        if alias.key is None:
            if self.client.search_registered_models(f"name = '{alias.name}'"):
                self.client.delete_registered_model_alias(alias.name, alias.alias)
            return
        for version in self._versions(alias.name, alias.key):
            self.client.set_registered_model_alias(alias.name, alias.alias, str(version.version))

    def _versions(self, name: str, key: str) -> list[Any]:
        found = self.client.search_model_versions(f"name = '{name}'", max_results=1000)
        return [version for version in found if version.tags.get(KEY) == self._full(key)]
