"""Sends MLflow what is on disk and was not sent yet: stages part by part, rounds, and the run's own files.

The `.tracking.json` of each says what was sent, so that a kill loses nothing and nothing is there twice.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from configs.disk.files import MANIFEST, digest, read_manifest
from tasks.runs.facts import ROUND_FILE, ModelFact, RoundFile, Status, load, save
from tasks.runs.run_file import RUN_FILE
from tasks.tracking import outbox
from tasks.tracking.outbox import TRACKING, RoundTracking, RunTracking, StageTracking
from tasks.tracking.store import Store

TAG_LENGTH = 8000
RUN_FILES = (RUN_FILE, "summary.json", "report.html", "log.txt")


def send_missing(store: Store, run_dir: Path) -> None:
    """Send everything of the run's stages and rounds that was not sent yet."""
    for stage_dir in outbox.stage_folders(run_dir):
        send_stage(store, stage_dir)
    for path in sorted(run_dir.glob(f"round_*/{ROUND_FILE}")):
        send_round(store, path.parent)


def send_stage(store: Store, stage_dir: Path) -> None:
    """Send what a stage's attempt wrote so far and, once it has ended, its files and its status."""
    record = load(stage_dir / TRACKING, StageTracking)
    if record is None:
        return
    record = record.under(store.parent_run())
    if record.done:
        return
    sender = StageSender(store, stage_dir, record)
    sender.describe()
    sender.send_journal()
    sender.send_rollouts()
    if sender.record.status != "RUNNING":
        sender.finish()


def send_round(store: Store, round_dir: Path) -> None:
    """Send a finished round's metrics to the parent run and to its own, and set the aliases of registered models."""
    round_file = load(round_dir / ROUND_FILE, RoundFile)
    sent = load(round_dir / TRACKING, RoundTracking)
    parent_id = store.parent_run()
    if round_file is None or (sent and (sent.parent_id, sent.ended_ms) == (parent_id, round_file.ended_ms)):
        return
    run_id = store.round_run(round_dir.name)
    for target_id in (parent_id, run_id):
        store.send_metrics(
            target_id,
            [(key, round_file.round, value, round_file.ended_ms) for key, value in round_file.metrics.items()],
        )
    for alias in round_file.aliases:
        store.set_alias(alias)
    store.end_run(run_id, "FINISHED", round_file.ended_ms)
    save(round_dir / TRACKING, RoundTracking(parent_id=parent_id, run_id=run_id, ended_ms=round_file.ended_ms))


def send_run_files(store: Store, run_dir: Path, status: Status) -> None:
    """Send `RUN_FILES` as artifacts of the parent run, as far as they changed since they were last sent."""
    parent_id = store.parent_run()
    before = load(run_dir / TRACKING, RunTracking)
    sent = before.files if before and before.parent_id == parent_id else {}
    files = {name: digest(run_dir / name) for name in RUN_FILES if (run_dir / name).exists()}
    for name, sha256 in files.items():
        if sent.get(name) != sha256:
            store.put(parent_id, run_dir / name, name, copy=True)
    save(run_dir / TRACKING, RunTracking(parent_id=parent_id, status=status, files=files))


class StageSender:
    """Sends one stage's attempt, and records after each part what was sent."""

    def __init__(self, store: Store, stage_dir: Path, record: StageTracking) -> None:
        self.store = store
        self.stage_dir = stage_dir
        self.record = record
        self.run_id = record.run_id or store.stage_run(record)
        if record.run_id is None:
            self._note(run_id=self.run_id)

    def _note(self, **changes: Any) -> None:
        self.record = self.record.model_copy(update=changes)
        save(self.stage_dir / TRACKING, self.record)

    def describe(self) -> None:
        """Send parameters and data sets."""
        if not self.record.described:
            self.store.send_params(self.run_id, self.record.facts.params)
            self.store.log_datasets(self.run_id, self.record.facts.datasets)
            self._note(described=True)

    def send_journal(self) -> None:
        """Send the metrics since the last call."""
        lines, end = outbox.journal_lines(self.stage_dir, self.record.journal_offset)
        if lines:
            rows = [(line.key, line.step, line.value, line.timestamp_ms) for line in lines]
            self.store.send_metrics(self.run_id, rows)
            self._note(journal_offset=end)

    def send_rollouts(self) -> None:
        """Send a table for each training step since the last call."""
        tables, end = outbox.rollout_tables(self.stage_dir, self.record.rollouts_offset)
        if tables:
            self._send_tables(tables)
            self._note(rollouts_offset=end)

    def _send_tables(self, tables: dict[str, list[dict[str, Any]]]) -> None:
        with TemporaryDirectory() as scratch:
            for name, rows in tables.items():
                path = Path(scratch) / PurePosixPath(name).name
                path.write_text(outbox.table_json(rows), encoding="utf-8")
                self.store.put(self.run_id, path, name, copy=True)
        names = list(dict.fromkeys([*self.record.tables, *tables]))
        self.store.set_tags(self.run_id, {"mlflow.loggedArtifacts": outbox.tables_tag(names, TAG_LENGTH)})
        self._note(tables=names)

    def finish(self) -> None:
        """Send files, tables and model of a finished stage, then the final status of the MLflow run."""
        if self.record.status == "FINISHED":
            self._send_files()
            if tables := outbox.final_tables(self.stage_dir):
                self._send_tables(tables)
            if self.record.outcome.model is not None:
                self._send_model(self.record.outcome.model)
            self.store.set_tags(self.run_id, self.record.outcome.tags)
        self.store.end_run(self.run_id, self.record.status, self.record.ended_ms)
        self._note(done=True)

    def _send_files(self) -> None:
        manifest = read_manifest(self.stage_dir)
        assert manifest is not None, "a stage is FINISHED after its manifest was written"
        for name in [*manifest.outputs, MANIFEST]:
            if name not in self.record.files:
                self.store.put(self.run_id, self.stage_dir / name, name)
                self._note(files=[*self.record.files, name])

    def _send_model(self, model: ModelFact) -> None:
        if model.source is not None:
            source = Path(model.source)
            for path in sorted(path for path in source.rglob("*") if path.is_file()):
                self.store.put(self.run_id, path, f"{model.folder}/{path.relative_to(source).as_posix()}")
        self.store.register(self.run_id, model, self.record.facts.key, self.record.attempt)
