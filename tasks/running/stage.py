"""Running a stage: skipped where its manifest matches, otherwise from its newest checkpoint or a clean folder, manifest last."""

from __future__ import annotations

import logging
import shutil
import time
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import ValidationError

from configs.disk.checkpoints import CHECKPOINTS, Checkpoints, Seal, discard_checkpoints
from configs.disk.files import MANIFEST, Manifest, digest, digest_files, digest_json, read_manifest, write_manifest
from configs.errors import StageStopped
from configs.records import Record
from configs.schema.config import Config
from configs.schema.operational import flatten, without_operational
from tasks.running.allocator import reused_memory
from tasks.running.run import Run
from tasks.runs.facts import DatasetFact, Outcome, StageFacts, Status
from tasks.runs.versions import versions
from tasks.tracking.outbox import TRACKING

NOT_OUTPUTS = (MANIFEST, TRACKING, CHECKPOINTS)


class Progress(Protocol):
    """Where a stage says how far it is; `tasks.showing.terminal.StageProgress` is one."""

    def set(self, done: int, *, total: int | None = None, unit: str | None = None) -> None: ...

    def say(self, note: str) -> None: ...


class Silent:
    """Progress that nobody looks at."""

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
    """What a stage's body may call while it works; by default nobody listens."""

    should_stop: Callable[[], bool] = _never
    written: Callable[[], None] = _nothing
    """to be called when lines were added to the journal"""
    progress: Progress = field(default_factory=Silent)
    warn: Callable[[str], None] = _log_warning
    """what a person should look at"""


ALONE = Context()


class StageSpec(Record):
    """All that a stage is given: JSON, so that a child job can be handed it."""

    config: Config
    round: int

    @abstractmethod
    def reads(self) -> tuple[str, ...]:
        """Blocks of the configuration that decide what the stage writes, `block` or `block.name`."""

    @abstractmethod
    def inputs(self) -> dict[str, str]:
        """Digest of each data file, or id of each model, that the stage reads. No manifests, no journals: they hold times."""

    def config_part(self) -> dict[str, Any]:
        """The blocks that the stage reads, without their operational fields."""
        whole = without_operational(self.config)
        return {path: _block_at(whole, path) for path in self.reads()}

    def config_digest(self) -> str:
        return digest_json(self.config_part())

    def older_config_digest(self) -> str:
        """As 0.1.0 wrote it for stages that read all of `grpo_config` or `reward_models`: their `save_steps` counted."""
        part = self.config_part()
        if "grpo_config" in part:
            part["grpo_config"]["save_steps"] = self.config.grpo_config.save_steps
        if "reward_models" in part:
            for name, model in self.config.trained_reward_models.items():
                part["reward_models"][name]["save_steps"] = model.save_steps
        return digest_json(part)

    @property
    def save_steps(self) -> int:
        """Steps between two checkpoints; 0 where an interrupted stage starts over."""
        return 0

    def checkpoints(self, folder: Path, warn: Callable[[str], None]) -> Checkpoints:
        """Those that `folder` holds of this very work."""
        work = {"config": self.config_digest(), "inputs": self.inputs()}
        keep = self.config.keep_checkpoints
        return Checkpoints(folder, fingerprint=digest_json(work), every=self.save_steps, keep=keep, warn=warn)


def _block_at(config: dict[str, Any], path: str) -> Any:
    block, _, name = path.partition(".")
    return config[block][name] if name else config[block]


SpecT = TypeVar("SpecT", bound=StageSpec)
Body = Callable[[SpecT, Path, Context], None]


@dataclass(frozen=True)
class StageNames:
    """How a stage is called: `key` in MLflow and on disk (`round_001/policy`), `title` at the terminal."""

    key: str
    title: str


def names_of(run: Run, folder: Path) -> StageNames:
    """The key is the folder's place in the run."""
    key = folder.relative_to(run.folder).as_posix()
    head, _, rest = key.partition("/")
    title = f"round {int(head[6:])} · {rest.replace('_', ' ')}" if head.startswith("round_") else key
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
    """Make sure that `folder` holds what `body` makes of `spec`; returns its manifest.

    `outcome` is asked, once the body is done, which model the registry should hold and what MLflow should be told besides.
    """
    names = names_of(run, folder)
    why = mismatch(folder, spec)
    if why is None:
        manifest = _stands(run, folder, names)
        facts = _facts(run, spec, names, manifest.started_ms, datasets or [], tags or {})
        run.tracking.stage_stands(folder, facts, outcome, manifest.ended_ms)
        return manifest
    if (folder / MANIFEST).exists():
        run.console.warn(f"{names.title} runs again: {why}")
    started_ms = _now_ms()
    done = go_back(folder, spec, run.console.warn)
    if done is not None:
        run.console.say(f"{names.title}: goes on after step {done.step}")
        started_ms -= int(1000 * done.seconds)
    run.tracking.start_stage(folder, _facts(run, spec, names, started_ms, datasets or [], tags or {}))
    status: Status = "FAILED"
    try:
        with run.console.stage(names.title) as progress, run.clock.working(), reused_memory():
            sync = run.clock.aside(run.tracking.sync)
            body(spec, folder, Context(run.should_stop, sync, progress, run.console.warn))
        manifest = _finish(run, spec, folder, names, started_ms)
        status = "FINISHED"
    except (StageStopped, KeyboardInterrupt):
        status = "KILLED"
        raise
    finally:
        run.tracking.end_stage(folder, status, outcome() if status == "FINISHED" else None)
    return manifest


def _stands(run: Run, folder: Path, names: StageNames) -> Manifest:
    run.console.skipped(names.title)
    discard_checkpoints(folder)
    manifest = read_manifest(folder)
    assert manifest is not None, "it was just compared"
    return manifest


def mismatch(folder: Path, spec: StageSpec) -> str | None:
    """Why the stage has to run, or None where its manifest matches configuration, inputs and files."""
    try:
        manifest = read_manifest(folder)
    except ValidationError as error:
        return f"its manifest is broken ({error.error_count()} faults)"
    if manifest is None:
        return "not finished before"
    if manifest.config_digest not in (spec.config_digest(), spec.older_config_digest()):
        return f"the configuration that it reads ({', '.join(spec.reads())}) changed"
    if changed := _differing(manifest.inputs, spec.inputs()):
        return f"inputs changed: {', '.join(changed)}"
    if changed := [name for name, wanted in manifest.outputs.items() if _digest_or_none(folder / name) != wanted]:
        return f"files changed or are gone: {', '.join(changed)}"
    return None


def _differing(old: dict[str, str], new: dict[str, str]) -> list[str]:
    return sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))


def digest_or_gone(path: Path) -> str:
    """For `inputs()`: the digest of a file that may have been removed since."""
    return digest(path) if path.is_file() else "gone"


def _digest_or_none(path: Path) -> str | None:
    return digest(path) if path.is_file() else None


def go_back(folder: Path, spec: StageSpec, warn: Callable[[str], None]) -> Seal | None:
    """Leave what the newest checkpoint of an interrupted stage knew of, and return its seal; otherwise an empty folder."""
    if spec.save_steps and not (folder / MANIFEST).exists():
        return spec.checkpoints(folder, warn).rewind()
    clear(folder)
    return None


def clear(folder: Path) -> None:
    """An empty folder; the manifest goes first, so that a half-cleared folder is never taken for a finished stage."""
    (folder / MANIFEST).unlink(missing_ok=True)
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)


def _finish(run: Run, spec: StageSpec, folder: Path, names: StageNames, started_ms: int) -> Manifest:
    manifest = Manifest(
        stage=names.key.split("/", 1)[-1],
        round=spec.round,
        config_digest=spec.config_digest(),
        inputs=spec.inputs(),
        outputs=digest_files(folder, leave_out=NOT_OUTPUTS),
        seed=spec.config.seed,
        versions=versions(),
        started_ms=started_ms,
        ended_ms=_now_ms(),
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
    """A data file that a stage reads, as MLflow is told of it."""
    num_rows = path.read_bytes().count(b"\n")
    source = str(path.relative_to(run.workspace)) if path.is_relative_to(run.workspace) else str(path)
    return DatasetFact(name=name, digest=digest(path), context=context, source=source, num_rows=num_rows)


def _now_ms() -> int:
    return int(time.time() * 1000)
