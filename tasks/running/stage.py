"""Runs a stage, or skips it if its manifest matches.

A stage goes on from its newest checkpoint if it has one, otherwise it starts in an empty folder. The manifest is
written last.
"""

from __future__ import annotations

import logging
import shutil
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from pydantic import Field, ValidationError

from configs.config_paths import as_spelled
from configs.disk.checkpoints import CHECKPOINTS, Checkpoints, Seal, discard_checkpoints
from configs.disk.files import MANIFEST, Manifest, digest, digest_files, digest_json, read_manifest, write_manifest
from configs.errors import StageStopped
from configs.records import Record
from configs.schema.config import Config
from configs.schema.operational import flatten, without_operational
from configs.schema.problems import Columns, OverlapConfig
from reward_training.waiting import Waiting
from tasks.running.allocator import reused_memory
from tasks.running.run import Run
from tasks.runs.cleaned import CLEANED, cleaned_files, refuse_cleaned
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


class StageSpec(Record):
    """Everything that a stage is given. It is JSON, so that it can be passed to a child job."""

    TOLD: ClassVar[tuple[str, ...]] = ()
    """beginnings of the names of inputs whose change is told of and lets what a finished stage made stand"""

    config: Config
    round: int
    spelled: dict[str, str] = Field(default_factory=dict)
    """paths of the configuration as the digests of a run of an earlier version cover them (`RunFile.spelled`)"""

    @abstractmethod
    def reads(self) -> tuple[str, ...]:
        """Blocks of the configuration that affect what the stage writes, as `block` or `block.name`."""

    @abstractmethod
    def inputs(self) -> dict[str, str]:
        """Digest of each data file, or id of each model, that it reads; no manifests or journals, which hold times."""

    def scorers(self) -> dict[str, str]:
        """Those of the inputs that tell what its rewards score by: code, prompts, rubrics."""
        return {}

    def scored_with(self) -> dict[str, str]:
        """{distribution: version} of the installed packages that its rewards use."""
        return {}

    def config_part(self) -> dict[str, Any]:
        """The blocks that the stage reads, without their operational fields and without later ones at their defaults."""
        whole = without_operational(self.config)
        found = {path: _block_at(whole, path) for path in self.reads()}
        return {path: block for path, block in found.items() if block is not None}

    def config_digest(self) -> str:
        return self._digest(self.config_part())

    def _digest(self, part: dict[str, Any]) -> str:
        return digest_json(as_spelled(part, self.spelled))

    def older_config_digest(self) -> str:
        """The digest of manifests written by 0.1.0.

        It covers `save_steps` if all of `grpo_config` or `reward_models` is read, and of `problems` no field that came later.
        """
        part = self.config_part()
        if "problems" in part:
            part["problems"] = _problems_of_0_1_0(part["problems"])
        if "grpo_config" in part:
            part["grpo_config"]["save_steps"] = self.config.grpo_config.save_steps
        if "reward_models" in part:
            for name, model in self.config.trained_reward_models.items():
                part["reward_models"][name]["save_steps"] = model.save_steps
        return self._digest(part)

    @property
    def save_steps(self) -> int:
        """Number of steps between checkpoints; 0 if an interrupted stage starts over."""
        return 0

    def checkpoints(self, folder: Path, warn: Callable[[str], None]) -> Checkpoints:
        """The checkpoints in `folder`, of which only those of the same configuration and inputs are used."""
        inputs = self.inputs()
        known_before = {name: value for name, value in inputs.items() if not name.startswith(SCORER)}
        fingerprint, older = (
            digest_json({"config": self.config_digest(), "inputs": some}) for some in (inputs, known_before)
        )
        keep = self.config.keep_checkpoints
        return Checkpoints(folder, fingerprint=fingerprint, older=older, every=self.save_steps, keep=keep, warn=warn)


SCORER = "scorer/"
"""begins the name of an input that is the digest of what a reward scores by. Manifests and checkpoints of earlier versions
lack it: what they do not tell is taken to be as it is today"""
TEMPLATE = ("problems.template_variables", "problems.join_system")
"""what a stage that renders prompts reads of the block `problems`"""


def _block_at(config: dict[str, Any], path: str) -> Any:
    block, _, name = path.partition(".")
    return config[block].get(name) if name else config.get(block)


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
    kept_s, worked_before = seal.seconds if seal is not None else 0.0, run.clock.work
    if seal is not None:
        run.console.say(f"{names.title}: goes on after step {seal.step}")
        started_ms -= int(1000 * seal.seconds)
    run.tracking.start_stage(folder, _facts(run, spec, names, started_ms, datasets or [], tags or {}))
    status: Status = "FAILED"
    run.note_time()
    try:
        with run.console.stage(names.title) as progress, run.clock.working(), reused_memory():
            sync = run.clock.aside(run.tracking.sync)
            body(spec, folder, Context(run.should_stop, sync, progress, run.console.warn))
        worked_s = kept_s + run.clock.work - worked_before
        manifest = _finish(run, spec, folder, names, started_ms, worked_s, scorers)
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
    if changed := [name for name in _differing(manifest.inputs, inputs) if name.startswith(spec.TOLD)]:
        run.console.warn(f"{names.title} stands as it is, though since then {', '.join(changed)} changed")
    if any(name.startswith(SCORER) and name not in manifest.inputs for name in inputs):
        run.console.warn_once(
            "stages that an earlier version finished do not tell by which code their rewards scored; it is taken to be today's"
        )
    return manifest


def mismatch(folder: Path, spec: StageSpec) -> str | None:
    """Why the stage has to run, or None if its manifest matches configuration, inputs and output files.

    Files that were cleaned away count as there.
    """
    try:
        manifest = read_manifest(folder)
    except ValidationError as error:
        return f"its manifest is broken ({error.error_count()} faults)"
    if manifest is None:
        return "not finished before"
    if manifest.config_digest not in (spec.config_digest(), spec.older_config_digest()):
        return f"the configuration that it reads ({', '.join(spec.reads())}) changed"
    if changed := [name for name in _differing(manifest.inputs, spec.inputs()) if not name.startswith(spec.TOLD)]:
        return f"inputs changed: {', '.join(changed)}"
    cleaned, outputs = cleaned_files(folder), manifest.outputs.items()
    if changed := [
        name for name, wanted in outputs if name not in cleaned and _digest_or_none(folder / name) != wanted
    ]:
        return f"files changed or are gone: {', '.join(changed)}"
    return None


def models_of(spec: StageSpec) -> Iterator[Path]:
    """The folders of the models that a stage is given; a hub id is one that does not exist."""
    for name in type(spec).model_fields:
        value = getattr(spec, name)
        for model in value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]:
            if isinstance(path := getattr(model, "path", None), str | Path):
                yield Path(path)


def _differing(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """The names of inputs that are not the same in both; one of SCORER that `old` lacks is unknown, and is left out."""
    unknown = {name for name in new.keys() - old.keys() if name.startswith(SCORER)}
    return sorted(name for name in (old.keys() | new.keys()) - unknown if old.get(name) != new.get(name))


def _problems_of_0_1_0(problems: dict[str, Any]) -> dict[str, Any]:
    """The block `problems` as 0.1.0 wrote it, where fields that came later have their defaults."""
    default = OverlapConfig().model_dump()
    overlap = {name: v for name, v in problems["overlap"].items() if name != "min_share" or v != default["min_share"]}
    if overlap["action"] == default["action"]:
        overlap["action"] = "refuse"
    return problems | {"overlap": overlap, "sources": [_source_of_0_1_0(source) for source in problems["sources"]]}


def _source_of_0_1_0(source: dict[str, Any]) -> dict[str, Any]:
    if "columns" not in source:
        return source
    default, old = Columns().model_dump(), ("question", "answer", "difficulty")
    return source | {"columns": {n: v for n, v in source["columns"].items() if n in old or v != default[n]}}


def _digest_or_none(path: Path) -> str | None:
    return digest(path) if path.is_file() else None


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
