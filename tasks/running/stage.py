"""Runs a stage, or skips it if its manifest matches.

A stage goes on from its newest checkpoint if it has one, otherwise it starts in an empty folder. The manifest is
written last.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from configs.disk.checkpoints import CHECKPOINTS, Seal, discard_checkpoints
from configs.disk.files import MANIFEST, Manifest, digest, digest_files, read_manifest, write_manifest
from configs.errors import StageStopped
from configs.schema.operational import flatten
from reward_training.waiting import Waiting
from tasks.running.allocator import reused_memory
from tasks.running.run import Run
from tasks.running.stage_spec import SCORER, StageSpec, differing, mismatch
from tasks.running.twins import Twin, find_twin
from tasks.runs.cleaned import CLEANED, refuse_cleaned
from tasks.runs.facts import DatasetFact, Outcome, StageFacts, Status
from tasks.runs.versions import versions
from tasks.tracking.outbox import TRACKING

NOT_OUTPUTS = (MANIFEST, TRACKING, CHECKPOINTS, CLEANED)


class Progress(Protocol):
    """What a stage reports its progress to, for instance `tasks.showing.terminal.StageProgress`."""

    def set(self, done: int, *, total: int | None = None, unit: str | None = None) -> None: ...

    def say(self, note: str) -> None: ...


class Silent:
    """A `Progress` that shows nothing."""

    def set(self, done: int, *, total: int | None = None, unit: str | None = None) -> None:
        """Nothing to show."""

    def say(self, note: str) -> None:
        """Nothing to show."""


def _never() -> bool:
    return False


def _nothing() -> None:
    return None


def _log_warning(text: str) -> None:
    logging.getLogger("regroup").warning(text)


@dataclass(frozen=True)
class Context:
    """The functions that a stage's body may call while it works; by default it never stops and only logs warnings."""

    should_stop: Callable[[], bool] = _never
    written: Callable[[], None] = _nothing
    """to be called after lines were added to the journal or the rollouts"""
    progress: Progress = field(default_factory=Silent)
    warn: Callable[[str], None] = _log_warning
    """to be called with a warning for the user"""

    @property
    def waiting(self) -> Waiting:
        """What is lent to what waits for servers."""
        return Waiting(self.warn, self.should_stop)


ALONE = Context()


SpecT = TypeVar("SpecT", bound=StageSpec)
Body = Callable[[SpecT, Path, Context], None]


@dataclass(frozen=True)
class StageNames:
    """The names of a stage: `key` in MLflow and on disk (`round_001/policy`), `title` at the terminal."""

    key: str
    title: str


def names_of(run: Run, folder: Path) -> StageNames:
    """The names of the stage in `folder`; the key is the folder's path within the run."""
    key = folder.relative_to(run.folder).as_posix()
    head, _, rest = key.partition("/")
    title = (
        f"round {int(head[6:])} · {rest.replace('_', ' ').replace('/', ' · ')}" if head.startswith("round_") else key
    )
    return StageNames(key, title)


def run_stage(
    run: Run,
    spec: SpecT,
    folder: Path,
    body: Body[SpecT],
    *,
    datasets: list[DatasetFact] | None = None,
    outcome: Callable[[], Outcome] = Outcome,
    tags: dict[str, str] | None = None,
) -> Manifest:
    """Make sure that `folder` holds what `body` writes for `spec`; returns its manifest.

    `outcome` is called once the body is done: it says which model is registered, and which tags MLflow gets.
    """
    names, spec = names_of(run, folder), for_run(run, spec)
    reason = mismatch(folder, spec)
    if reason is None:
        manifest = _skipped(run, spec, folder, names)
        facts = _facts(run, spec, names, manifest.started_ms, datasets or [], tags or {})
        run.tracking.stage_stands(folder, facts, outcome, manifest.ended_ms)
        return manifest
    if (folder / MANIFEST).exists():
        run.console.warn(f"{names.title} runs again: {reason}")
    for model in models_of(spec):
        refuse_cleaned(model)
    started_ms, scorers = _now_ms(), spec.scorers()
    seal = go_back(folder, spec, run.console.warn)
    kept_s, worked_before, twin = 0.0, run.clock.work, None
    if seal is not None:
        run.console.say(f"{names.title}: goes on after step {seal.step}")
        kept_s = seal.seconds
        started_ms -= int(1000 * seal.seconds)
    elif (twin := find_twin(run, spec, folder)) is not None:
        run.console.say(f"{names.title}: what run {twin.run} wrote, copied")
        kept_s = twin.seconds
    run.tracking.start_stage(folder, _facts(run, spec, names, started_ms, datasets or [], tags or {}))
    status: Status = "FAILED"
    run.note_time()
    try:
        if twin is None:
            with run.console.stage(names.title) as progress, run.clock.working(), reused_memory():
                sync = run.clock.aside(run.tracking.sync)
                body(spec, folder, Context(run.should_stop, sync, progress, run.console.warn))
        else:
            twin.copy(folder)
        worked_s = kept_s + run.clock.work - worked_before
        manifest = _finish(run, spec, folder, names, started_ms, worked_s, scorers, twin)
        status = "FINISHED"
    except (StageStopped, KeyboardInterrupt):
        status = "KILLED"
        raise
    finally:
        run.note_time()
        run.tracking.end_stage(folder, status, outcome() if status == "FINISHED" else None)
    return manifest


def for_run(run: Run, spec: SpecT) -> SpecT:
    """`spec` with digests that are those of the run's finished stages, which an earlier version may have begun."""
    return spec.model_copy(update={"spelled": run.file.spelled})


def _skipped(run: Run, spec: StageSpec, folder: Path, names: StageNames) -> Manifest:
    run.console.skipped(names.title)
    discard_checkpoints(folder)
    manifest = read_manifest(folder)
    assert manifest is not None, "it was just compared"
    inputs = spec.inputs()
    if changed := [name for name in differing(manifest.inputs, inputs) if name.startswith(spec.TOLD)]:
        run.console.warn(f"{names.title} stands as it is, though since then {', '.join(changed)} changed")
    if any(name.startswith(SCORER) and name not in manifest.inputs for name in inputs):
        run.console.warn_once(
            "stages that an earlier version finished do not tell by which code their rewards scored; it is taken to be today's"
        )
    return manifest


def models_of(spec: StageSpec) -> Iterator[Path]:
    """The folders of the models that a stage is given; a hub id is one that does not exist."""
    for name in type(spec).model_fields:
        value = getattr(spec, name)
        for model in value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]:
            if isinstance(path := getattr(model, "path", None), str | Path):
                yield Path(path)


def go_back(folder: Path, spec: StageSpec, warn: Callable[[str], None]) -> Seal | None:
    """Take an interrupted stage back to its newest checkpoint and return the seal; without one, empty the folder."""
    if spec.save_steps and not (folder / MANIFEST).exists():
        return spec.checkpoints(folder, warn).rewind()
    clear(folder)
    return None


def clear(folder: Path) -> None:
    """Empty the folder, the manifest first, so that a half-cleared folder is never taken for a finished stage."""
    (folder / MANIFEST).unlink(missing_ok=True)
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)


def _finish(
    run: Run,
    spec: StageSpec,
    folder: Path,
    names: StageNames,
    started_ms: int,
    worked_s: float,
    scorers: dict[str, str],
    twin: Twin | None,
) -> Manifest:
    """Seal the stage; `scorers` are those with which it began, whatever was changed while it worked."""
    manifest = Manifest(
        stage=names.key.split("/", 1)[-1],
        round=spec.round,
        config_digest=spec.config_digest(),
        inputs=spec.inputs() | scorers,
        outputs=digest_files(folder, leave_out=NOT_OUTPUTS),
        seed=spec.config.seed,
        versions=spec.scored_with() | versions(),
        started_ms=started_ms,
        ended_ms=_now_ms(),
        worked_s=worked_s,
        copied_from=None if twin is None else twin.run,
        mlflow_run_id=run.tracking.stage_run_id(folder),
        prefect_flow_run_id=run.prefect_flow_run_id,
    )
    write_manifest(folder, manifest)
    discard_checkpoints(folder)
    return manifest


def _facts(
    run: Run, spec: StageSpec, names: StageNames, started_ms: int, datasets: list[DatasetFact], tags: dict[str, str]
) -> StageFacts:
    links = {"regroup.config_digest": spec.config_digest(), "regroup.round": str(spec.round)}
    if run.prefect_flow_run_id:
        links["prefect.flow_run_id"] = run.prefect_flow_run_id
    return StageFacts(
        key=names.key,
        started_ms=started_ms,
        tags=links | tags,
        params={key: str(value) for key, value in flatten(spec.config_part())},
        datasets=datasets,
    )


def dataset_fact(run: Run, path: Path, context: str, name: str) -> DatasetFact:
    """A data file that a stage reads, described for MLflow."""
    num_rows = path.read_bytes().count(b"\n")
    source = str(path.relative_to(run.workspace)) if path.is_relative_to(run.workspace) else str(path)
    return DatasetFact(name=name, digest=digest(path), context=context, source=source, num_rows=num_rows)


def _now_ms() -> int:
    return int(time.time() * 1000)
