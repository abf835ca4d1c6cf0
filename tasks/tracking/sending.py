"""Sends MLflow what is on disk and was not sent yet: first all metrics and states of runs, then files and models.

The `.tracking.json` of stages, rounds and run say what was sent, so that a kill loses nothing and nothing is there twice.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, ParamSpec

from configs.disk.files import digest
from configs.paths import RUN_FILE
from tasks.runs.cleaned import is_cleaned
from tasks.runs.facts import ROUND_FILE, ModelFact, RoundFile, Status, load, rollbacks, save
from tasks.runs.follow_on import runs_of_chain
from tasks.runs.workspace import run_folder
from tasks.tracking import outbox
from tasks.tracking.aliases import Aliases, aliases_after, events_of, model_id, models_of
from tasks.tracking.outbox import TRACKING, Artifact, RoundTracking, RunTracking, StageTracking, Table
from tasks.tracking.store import Store

Args = ParamSpec("Args")

TAG_LENGTH = 8000
ROLLED_BACK = "regroup.rolled_back"
RUN_FILES = (RUN_FILE, "summary.json", "report.html", "log.txt")
FAILURES_IN_A_ROW = 3
FAILED_S = 60.0
"""after so many failures, or so long a wait for them, the rest is left for later"""


class Attempts:
    """Tries one piece of work after the other: what fails is kept in `errors`, and the rest is tried all the same.

    Nothing more is tried after `until`, or when the store seems to be away.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, until: float = math.inf) -> None:
        self.errors: list[Exception] = []
        self._clock = clock
        self._until = until
        self._failed_in_a_row = 0
        self._failed_s = 0.0

    @property
    def go_on(self) -> bool:
        is_away = self._failed_in_a_row >= FAILURES_IN_A_ROW or self._failed_s > FAILED_S
        return not is_away and self._clock() < self._until

    def __call__(self, work: Callable[Args, object], *args: Args.args, **kwargs: Args.kwargs) -> None:
        """Call `work(*args, **kwargs)`, unless the rest is left for later."""
        if self.go_on:
            num_errors, began = len(self.errors), self._clock()
            with self.whole():
                work(*args, **kwargs)
            if len(self.errors) > num_errors:
                self._failed_in_a_row += 1
                self._failed_s += self._clock() - began
            else:
                self._failed_in_a_row = 0

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Keep the exception that ends the block, if one does.

        MLflow hands on whatever its stores' libraries raise (botocore's, Google's, Azure's errors, a missing module), of
        which no list is complete, and training goes on whatever the store does: so this is any exception.
        """
        try:
            yield
        except Exception as error:
            logging.getLogger("regroup").debug("MLflow was not told", exc_info=True)
            self.errors.append(error)


# ---- what a run sends -----------------------------------------------------------------------------------------------


def send_metrics(store: Store, run_dir: Path, attempt: Attempts) -> None:
    """Send the metrics and states of the run's stages and rounds, as far as they were not sent."""
    for stage_dir in outbox.unsent_stages(run_dir):
        attempt(tell, store, stage_dir)
    attempt(_replace_changed, store, run_dir)
    for path in sorted(run_dir.glob(f"round_*/{ROUND_FILE}")):
        attempt(send_round, store, path.parent)


def tell(store: Store, stage_dir: Path) -> None:
    StageSender(store, stage_dir).tell()


def send_files(store: Store, run_dir: Path, attempt: Attempts) -> None:
    """Send the files of the run's stages, small ones first, register the models that are whole, and set the aliases."""
    files: list[tuple[StageSender, Artifact]] = []
    folders = outbox.unsent_stages(run_dir)
    for stage_dir in folders:
        send_tables(store, stage_dir, attempt)
    for stage_dir in folders:
        attempt(lambda stage_dir: files.extend(_unsent_files(store, stage_dir)), stage_dir)
    for sender, artifact in sorted(files, key=lambda pair: pair[1].source.stat().st_size):
        attempt(sender.send_file, artifact)
    for stage_dir in folders:
        attempt(finish_stage, store, stage_dir)
    attempt(set_aliases, store, run_dir)


def send_tables(store: Store, stage_dir: Path, attempt: Attempts) -> None:
    """Send a table for each training step that was not sent yet, and those of a finished stage."""
    attempt(lambda: StageSender(store, stage_dir).send_tables(attempt))


def _unsent_files(store: Store, stage_dir: Path) -> list[tuple[StageSender, Artifact]]:
    sender = StageSender(store, stage_dir)
    return [(sender, artifact) for artifact in sender.unsent_files()]


def finish_stage(store: Store, stage_dir: Path) -> None:
    StageSender(store, stage_dir).finish()


def send_run_files(store: Store, run_dir: Path, attempt: Attempts) -> None:
    """Send `RUN_FILES` as artifacts of the parent run, as far as they changed since they were last sent."""
    for name in RUN_FILES:
        if (run_dir / name).exists():
            attempt(_send_run_file, store, run_dir, name)
    if back := next(reversed(rollbacks(run_dir)), None):
        attempt(lambda: store.set_tags(store.parent_run(), {ROLLED_BACK: str(back)}))


def _send_run_file(store: Store, run_dir: Path, name: str) -> None:
    parent_id, sent, sha256 = store.parent_run(), run_record(run_dir), digest(run_dir / name)
    if sent.parent_id != parent_id:
        sent = sent.model_copy(update={"parent_id": parent_id, "files": {}})
    if sent.files.get(name) != sha256:
        store.put(parent_id, run_dir / name, name, copy=True)
        save(run_dir / TRACKING, sent.model_copy(update={"files": sent.files | {name: sha256}}))


def run_record(run_dir: Path) -> RunTracking:
    return load(run_dir / TRACKING, RunTracking) or RunTracking(status="RUNNING", complete=False)


def note_run(run_dir: Path, status: Status, *, complete: bool) -> None:
    """Write down how the run's call ended, and whether MLflow has everything."""
    save(run_dir / TRACKING, run_record(run_dir).model_copy(update={"status": status, "complete": complete}))


# ---- rounds ---------------------------------------------------------------------------------------------------------


def send_round(store: Store, round_dir: Path) -> None:
    """Send a finished round's metrics to the parent run and to its own."""
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
    store.end_run(run_id, "FINISHED", round_file.ended_ms)
    save(round_dir / TRACKING, RoundTracking(parent_id=parent_id, run_id=run_id, ended_ms=round_file.ended_ms))


def _replace_changed(store: Store, run_dir: Path) -> None:
    """Put new runs in the place of the parent's and of the rounds' that were closed again after they were sent."""
    parent_id = store.parent_run()
    changed = [
        folder
        for folder in outbox.changed_rounds(run_dir)
        if (sent := load(folder / TRACKING, RoundTracking)) is not None and sent.parent_id == parent_id
    ]
    if not changed:
        return
    for folder in changed:
        store.replace_run(folder.name)
    new_id = store.replace_run("")
    for stage_dir, record in outbox.stage_records(run_dir):
        if record.parent_id == parent_id:
            save(stage_dir / TRACKING, record.model_copy(update={"parent_id": new_id}))


# ---- the registry's aliases -----------------------------------------------------------------------------------------


def set_aliases(store: Store, run_dir: Path) -> None:
    """Let the aliases of the chain's registered models serve what its runs decided."""
    for name, aliases in _wanted_aliases(store, run_dir).items():
        if store.aliases_set.get(name) != aliases:
            _register_again(store, run_dir, name, aliases)
            if store.registry.point(name, aliases):
                store.aliases_set[name] = aliases


def _register_again(store: Store, run_dir: Path, name: str, aliases: dict[str, str | None]) -> None:
    """Register what an alias is to serve, if the run has it and the registered model does not.

    An earlier version registered it under another name, or somebody deleted it in MLflow.
    """
    for record, model in models_of(run_dir):
        identity = model_id(model, record.facts.key)
        wanted = identity in aliases.values() and record.done and record.run_id is not None
        if wanted and not store.registry.has(name, identity):
            renamed = model.model_copy(update={"name": name})
            store.registry.register(renamed, str(record.run_id), store.version_tags(record))


def _wanted_aliases(store: Store, run_dir: Path) -> Aliases:
    """The aliases of the registered models of this run, by what all runs of its chain decided."""
    names = {event.name for event in events_of(run_dir)}
    folders = [run_folder(store.root, file.name) for file in runs_of_chain(store.root, store.name)] or [run_dir]
    after = aliases_after(event for folder in folders for event in events_of(folder))
    return {name: aliases for name, aliases in after.items() if name in names}


# ---- stages ---------------------------------------------------------------------------------------------------------


class StageSender:
    """Sends one stage's attempt, and records after each part what was sent."""

    def __init__(self, store: Store, stage_dir: Path) -> None:
        record = load(stage_dir / TRACKING, StageTracking)
        assert record is not None, "only stages with a record are sent"
        self.store = store
        self.stage_dir = stage_dir
        self.record = record.under(store.parent_run())
        self.run_id = self.record.run_id or store.stage_run(self.record)
        if self.record.run_id is None:
            self._note(run_id=self.run_id)

    def _note(self, **changes: Any) -> None:
        self.record = self.record.model_copy(update=changes)
        save(self.stage_dir / TRACKING, self.record)

    # ---- metrics and status ----

    def tell(self) -> None:
        """Send parameters, data sets and metrics and, once the attempt has ended, its tags and status."""
        if not self.record.described:
            self.store.send_params(self.run_id, self.record.facts.params)
            self.store.log_datasets(self.run_id, self.record.facts.datasets)
            self._note(described=True)
        lines, end = outbox.journal_lines(self.stage_dir, self.record.journal_offset)
        if lines:
            rows = [(line.key, line.step, line.value, line.timestamp_ms) for line in lines]
            self.store.send_metrics(self.run_id, rows)
            self._note(journal_offset=end)
        if self.record.status != "RUNNING" and not self.record.ended:
            self.store.set_tags(self.run_id, self.record.outcome.tags)
            self.store.end_run(self.run_id, self.record.status, self.record.ended_ms)
            self._note(ended=True)

    # ---- files ----

    def send_tables(self, attempt: Attempts) -> None:
        """Send the tables one by one, as long as `attempt` goes on, and then the list of them."""
        tables = self._unsent_tables()
        for table in tables:
            if attempt.go_on:
                self._send_table(table)
                names = list(dict.fromkeys([*self.record.tables, table.name]))
                self._note(rollouts_offset=max(table.end, self.record.rollouts_offset), tables=names)
        if tables:
            shown = outbox.tables_tag(self.record.tables, TAG_LENGTH)
            self.store.set_tags(self.run_id, {"mlflow.loggedArtifacts": shown})

    def _unsent_tables(self) -> list[Table]:
        tables = outbox.rollout_tables(self.stage_dir, self.record.rollouts_offset)
        if self.record.status != "FINISHED":
            return tables
        final = outbox.final_tables(self.stage_dir)
        return tables + [table for table in final if table.name not in self.record.tables]

    def _send_table(self, table: Table) -> None:
        with TemporaryDirectory() as scratch:
            path = Path(scratch) / PurePosixPath(table.name).name
            path.write_text(outbox.table_json(table.rows), encoding="utf-8")
            self.store.put(self.run_id, path, table.name, copy=True)

    def unsent_files(self) -> list[Artifact]:
        """The files that are still to be sent; those of a given model only if the registry does not have it yet."""
        artifacts = outbox.unsent_files(self.stage_dir, self.record)
        model = self.record.outcome.model
        if model is not None and model.source is not None and self._is_registered(model):
            artifacts = [artifact for artifact in artifacts if not artifact.name.startswith(f"{model.folder}/")]
        return artifacts

    def _is_registered(self, model: ModelFact) -> bool:
        identity, tags = model_id(model, self.record.facts.key), self.store.version_tags(self.record)
        return self.store.registry.has(model.name, identity, but_not=tags)

    def send_file(self, artifact: Artifact) -> None:
        self.store.put(self.run_id, artifact.source, artifact.name)
        self._note(files=[*self.record.files, artifact.name])

    def finish(self) -> None:
        """Register the stage's model, if everything else of the stage was sent, and note that all of it was."""
        if not self.record.ended or self._unsent_tables() or self.unsent_files():
            return
        model = self.record.outcome.model
        if model is not None and is_cleaned(self.stage_dir / model.folder):
            model = None
        if model is not None and not (model.source is not None and self._is_registered(model)):
            self.store.registry.register(model, self.run_id, self.store.version_tags(self.record))
        self._note(done=True)
