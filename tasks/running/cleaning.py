"""Cleans a workspace: removes the models, checkpoints and stray files that nothing needs any more.

A stage whose model is removed stays finished: `cleaned.json` beside its manifest says what is gone. Pairs, measurements,
rollouts, journals and reports always stay. What is removed is written down first, so a kill leaves a right state, and the
next call removes the rest.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from configs.disk.checkpoints import CHECKPOINTS, TEMPORARY
from configs.disk.files import read_manifest
from configs.paths import context_of
from configs.records import Policy
from configs.schema.operational import flatten
from tasks.runs.champions import champions
from tasks.runs.cleaned import note_cleaned
from tasks.runs.facts import load
from tasks.runs.follow_on import runs_of_chain
from tasks.runs.history import last_accepted, last_champion
from tasks.runs.progress import all_progress, files_below, readable, sizes_below
from tasks.runs.run_file import RunFile, run_files
from tasks.runs.workspace import BY_HAND, cold_start_folder, read_champion, run_folder, runs_folder
from tasks.tracking.outbox import TRACKING, StageTracking

MODEL, ADAPTER, ORIGIN, LAST_GOOD = "model", "adapter", "origin.json", "last_good"


@dataclass(frozen=True)
class Piece:
    """A folder or file in the workspace, and why it goes or stays."""

    path: Path
    why: str
    stage: Path | None = None
    """the finished stage that it belongs to, for what its manifest lists"""

    @property
    def sizes(self) -> dict[tuple[int, int], int]:
        """{(device, inode): bytes} of its files."""
        if self.path.is_dir():
            return sizes_below(self.path)
        stat = self.path.lstat()
        return {(stat.st_dev, stat.st_ino): stat.st_size}


@dataclass(frozen=True)
class Plan:
    """What a cleaning removes, and which models stay."""

    goes: list[Piece]
    stays: list[Piece]

    @property
    def size(self) -> int:
        """Bytes of all files that go."""
        return sum({key: size for piece in self.goes for key, size in piece.sizes.items()}.values())

    @property
    def freed(self) -> int:
        """Bytes that the disk gets back: those of files without a further hard link, for instance among MLflow's artifacts."""
        links: Counter[tuple[int, int]] = Counter()
        stats = {}
        for path in (path for piece in self.goes for path in _files(piece.path)):
            stat = path.lstat()
            links[stat.st_dev, stat.st_ino] += 1
            stats[stat.st_dev, stat.st_ino] = stat
        return sum(stat.st_size for key, stat in stats.items() if stat.st_nlink == links[key])

    def __str__(self) -> str:
        shared = self.size - self.freed
        why = f"; MLflow's artifacts are hard links that keep the other {readable(shared)}, see --artifacts"
        return f"{readable(self.freed)} of {readable(self.size)}{why if shared else ''}"


def clean(root: Path, *, keep_rounds: int, keep_artifacts: bool) -> str:
    """Clean the whole workspace, and say how much that freed. The caller holds the workspace lock."""
    plan = plan_cleaning(root, keep_rounds=keep_rounds)
    plan = plan if keep_artifacts else with_artifacts(root, plan)
    freed = f"frees {plan}"
    carry_out(plan)
    return freed


def plan_cleaning(root: Path, *, keep_rounds: int, only: str | None = None) -> Plan:
    """What may go of the run `only`, or of all runs, and what stays.

    Of each chain, the models of the newest `keep_rounds` rounds stay.
    """
    needed = _needed(root, keep_rounds)
    goes: list[Piece] = []
    stays: list[Piece] = []
    for file in run_files(root):
        if only not in (None, file.name):
            continue
        for piece in _models(root, run_folder(root, file.name), needed):
            (goes if piece.stage is not None else stays).append(piece)
        goes += _leftovers(run_folder(root, file.name), needed)
    if only is None:
        goes += [Piece(path, "left by a process that was killed") for path in _stray(root)]
    return Plan(goes, stays)


def with_artifacts(root: Path, plan: Plan) -> Plan:
    """The plan, and before it the same models where they are among MLflow's local artifacts by hard links."""
    going = {key: piece for piece in plan.goes if piece.stage is not None for key in piece.sizes}
    folders: dict[Path, set[tuple[int, int]]] = {}
    for entry in files_below(root / "mlartifacts"):
        stat = entry.stat(follow_symlinks=False)
        folders.setdefault(Path(entry.path).parent, set()).add((stat.st_dev, stat.st_ino))
    linked = [
        Piece(folder, f"MLflow's artifact of {going[min(keys)].path.relative_to(root)}")
        for folder, keys in sorted(folders.items())
        if keys <= going.keys()
    ]
    return Plan([*linked, *plan.goes], plan.stays)


def carry_out(plan: Plan) -> None:
    """Remove what the plan says; of each stage, first write down which files go."""
    for piece in plan.goes:
        if piece.stage is not None:
            manifest = read_manifest(piece.stage)
            assert manifest is not None, "the plan names finished stages"
            inside = f"{piece.path.name}/"
            note_cleaned(piece.stage, [name for name in manifest.outputs if name.startswith(inside)])
        if piece.path.is_dir():
            shutil.rmtree(piece.path)
        else:
            piece.path.unlink(missing_ok=True)


# ---- what is needed -------------------------------------------------------------------------------------------------


def _needed(root: Path, keep_rounds: int) -> dict[Path, str]:
    """{folder of a model: what needs it}, the first need of each."""
    needs: list[tuple[str | Path, str]] = []
    if (champion := read_champion(root)) is not None:
        needs.append((champion.path, "champion of the workspace"))
    unfinished = {run.name for run in all_progress(root) if not run.finished}
    for chain in _chains(root, run_files(root)):
        needs += _needs_of_chain(root, chain, unfinished)
        needs += _newest_rounds(root, chain, keep_rounds)
    needed: dict[Path, str] = {}
    for path, why in needs:
        for folder in (Path(path), *_base_of(root / path)):
            needed.setdefault((root / folder).resolve(), why)
    return needed


def _needs_of_chain(root: Path, chain: list[RunFile], unfinished: set[str]) -> Iterator[tuple[str | Path, str]]:
    """(folder, what needs it) of champion and previous champion, and of what its newest and unfinished runs go on from."""
    names = [file.name for file in chain]
    for what, policy in zip(("champion", "previous champion"), reversed(champions(root, names)), strict=False):
        yield policy.path, f"{what} of the chain of {names[0]}"
    for file in chain:
        if file.name == names[-1] or file.name in unfinished:
            yield from _needs_of_run(root, file, goes_on=file.name in unfinished)


def _newest_rounds(root: Path, chain: list[RunFile], keep_rounds: int) -> Iterator[tuple[Path, str]]:
    trained = [folder for file in chain for folder in _trained_rounds(run_folder(root, file.name))]
    for folder in trained[-keep_rounds:]:
        for path in (folder / "policy" / MODEL, *folder.glob(f"reward_model/*/{MODEL}")):
            yield path, f"of the chain's newest {keep_rounds} rounds"


def _chains(root: Path, files: list[RunFile]) -> Iterator[list[RunFile]]:
    seen: set[str] = set()
    for file in files:
        if file.name not in seen:
            chain = runs_of_chain(root, file.name)
            seen |= {member.name for member in chain}
            yield chain


def _trained_rounds(run_dir: Path) -> list[Path]:
    """Folders of the rounds that trained a policy, oldest first."""
    rounds = sorted(run_dir.glob("round_[0-9]*"), key=lambda path: int(path.name.removeprefix("round_")))
    return [folder for folder in rounds if read_manifest(folder / "policy") is not None]


def _needs_of_run(root: Path, file: RunFile, *, goes_on: bool) -> Iterator[tuple[str | Path, str]]:
    """(folder, what needs it) of the models that a run goes on from, or else its follow-on."""
    run_dir, of_run = run_folder(root, file.name), f"of run {file.name}"
    policies: list[tuple[Policy | None, str]] = [
        (file.given_policy, "given policy"),
        (file.initial_policy, "initial policy"),
        (last_champion(run_dir), "champion"),
    ]
    yield from ((policy.path, f"{what} {of_run}") for policy, what in policies if policy is not None)
    if goes_on:  # killed just before `run.json` named it, it is none of these
        yield cold_start_folder(run_dir) / MODEL, f"cold start {of_run}"
    rounds = len(list(run_dir.glob("round_[0-9]*")))
    for name in file.config.get("reward_models", {}):
        model = last_accepted(run_dir, name, before=rounds, inherited=file.reward_models)
        for ref in (model, file.reward_models.get(name) if goes_on else None):
            if ref is not None:
                yield ref.path, f"reward model {name!r} {of_run}"
    for field, value in flatten(file.config):
        if isinstance(value, str) and (root / value).resolve().is_relative_to(runs_folder(root).resolve()):
            yield value, f"{field} {of_run}"


def _base_of(policy: Path) -> Iterator[Path]:
    """The policy that an adapter beside this one was trained on: training may go on from the adapter."""
    origin = policy.parent / ADAPTER / ORIGIN
    if origin.exists():
        base = json.loads(origin.read_bytes())["base"]
        yield Path(Policy.model_validate(base, context=context_of(origin)).path)


# ---- what there is --------------------------------------------------------------------------------------------------


def _models(root: Path, run_dir: Path, needed: Mapping[Path, str]) -> Iterator[Piece]:
    """The models of a run; those that may go have `stage` set."""
    places = (
        "round_[0-9]*/policy",
        "round_[0-9]*/cold_start",
        "round_[0-9]*/reward_model/*",
        f"round_[0-9]*/{BY_HAND}/*",
    )
    for stage in sorted(folder for place in places for folder in run_dir.glob(place) if (folder / MODEL).is_dir()):
        model = stage / MODEL
        if (why := _why_it_stays(stage, needed.get(model.resolve()))) is not None:
            yield Piece(model, why)
            continue
        for folder in (model, stage / ADAPTER):
            if folder.is_dir():
                yield Piece(folder, "nothing needs it any more", stage)


def _why_it_stays(stage: Path, needed: str | None) -> str | None:
    if needed is not None:
        return needed
    if read_manifest(stage) is None:
        return "its stage is not finished"
    told = load(stage / TRACKING, StageTracking)
    return "MLflow was not sent it yet" if told is not None and not told.done else None


def _leftovers(run_dir: Path, needed: Mapping[Path, str]) -> Iterator[Piece]:
    """Checkpoints of finished stages, half-written ones, and policies from before a training diverged."""
    for checkpoints in sorted(run_dir.glob(f"**/{CHECKPOINTS}")):
        if read_manifest(checkpoints.parent) is not None:
            yield Piece(checkpoints, "checkpoints of a finished stage")
        elif (checkpoints / TEMPORARY).exists():
            yield Piece(checkpoints / TEMPORARY, "a checkpoint that was not finished")
    for folder in sorted(run_dir.glob(f"round_[0-9]*/policy/{LAST_GOOD}")):
        if folder.resolve() not in needed:
            yield Piece(folder, "the policy before a training diverged")


def _stray(root: Path) -> Iterator[Path]:
    """Temporary files of processes that were killed: `.report.json.4711.tmp`. The workspace is held, so nobody writes one."""
    for top in (runs_folder(root), root / "review", root / "mlartifacts"):
        for entry in files_below(top):
            if entry.name.startswith(".") and entry.name.endswith(".tmp"):
                yield Path(entry.path)


def _files(path: Path) -> Iterable[Path]:
    return [Path(entry.path) for entry in files_below(path)] if path.is_dir() else [path]
