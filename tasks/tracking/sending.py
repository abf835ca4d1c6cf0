"""Sending one stage's attempt to MLflow, part by part; `.tracking.json` holds what was sent, so that a kill loses nothing."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from configs.disk.files import MANIFEST, read_manifest
from tasks.runs import facts as mirror
from tasks.runs.facts import TRACKING, ModelFact, StageTracking

if TYPE_CHECKING:
    from tasks.tracking.tracker import Tracking

TAG_LENGTH = 8000


class StageSender:
    """Sends one stage's attempt, and writes down after each part what was sent."""

    def __init__(self, tracking: Tracking, folder: Path, record: StageTracking) -> None:
        self.tracking = tracking
        self.folder = folder
        self.record = record
        self.run_id = record.run_id or tracking.stage_run(record)
        if record.run_id is None:
            self._note(run_id=self.run_id)

    def _note(self, **changes: Any) -> None:
        self.record = self.record.model_copy(update=changes)
        mirror.save(self.folder / TRACKING, self.record)

    def describe(self) -> None:
        """Parameters and data sets."""
        if not self.record.described:
            self.tracking.send_params(self.run_id, self.record.facts.params)
            self.tracking.log_datasets(self.run_id, self.record.facts.datasets)
            self._note(described=True)

    def send_journal(self) -> None:
        lines, end = mirror.journal_lines(self.folder, self.record.journal_offset)
        if lines:
            rows = [(line.key, line.step, line.value, line.timestamp_ms) for line in lines]
            self.tracking.send_metrics(self.run_id, rows)
            self._note(journal_offset=end)

    def send_rollouts(self) -> None:
        tables, end = mirror.rollout_tables(self.folder, self.record.rollouts_offset)
        if tables:
            self._send_tables(tables)
            self._note(rollouts_offset=end)

    def _send_tables(self, tables: dict[str, list[dict[str, Any]]]) -> None:
        with TemporaryDirectory() as scratch:
            for name, rows in tables.items():
                path = Path(scratch) / PurePosixPath(name).name
                path.write_text(mirror.table_json(rows), encoding="utf-8")
                self.tracking.put(self.run_id, path, name, copy=True)
        names = list(dict.fromkeys([*self.record.tables, *tables]))
        self.tracking.set_tags(self.run_id, {"mlflow.loggedArtifacts": mirror.tables_tag(names, TAG_LENGTH)})
        self._note(tables=names)

    def finish(self) -> None:
        """Files, tables and model of a finished stage; then the run's terminal status."""
        if self.record.status == "FINISHED":
            self._send_files()
            if tables := mirror.final_tables(self.folder):
                self._send_tables(tables)
            if self.record.outcome.model is not None:
                self._send_model(self.record.outcome.model)
            self.tracking.set_tags(self.run_id, self.record.outcome.tags)
        self.tracking.end_run(self.run_id, self.record.status, self.record.ended_ms)
        self._note(done=True)

    def _send_files(self) -> None:
        manifest = read_manifest(self.folder)
        assert manifest is not None, "a stage is FINISHED after its manifest was written"
        for name in [*manifest.outputs, MANIFEST]:
            if name not in self.record.files:
                self.tracking.put(self.run_id, self.folder / name, name)
                self._note(files=[*self.record.files, name])

    def _send_model(self, model: ModelFact) -> None:
        if model.source is not None:
            source = Path(model.source)
            for path in sorted(path for path in source.rglob("*") if path.is_file()):
                self.tracking.put(self.run_id, path, f"{model.folder}/{path.relative_to(source).as_posix()}")
        self.tracking.register(self.run_id, model, self.record.facts.key, self.record.attempt)
