"""One Regroup run: its configuration, its folder, and what it started from (`run.json`)."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from configs import reader
from configs.disk.files import write_atomic, write_json
from configs.errors import ConfigError
from configs.records import Policy, Record
from configs.schema.config import Config
from configs.schema.rewards import JUDGE_OPERATION, WAITING, FileLabeler
from configs.seeds import seed_for
from tasks.running.clock import Clock
from tasks.runs.history import (
    INHERITED_PAIRS,
    INHERITED_REVIEW,
    ModelRef,
    last_accepted,
    last_finished_round,
    pair_files,
    review_files,
    round_policy,
)
from tasks.runs.workspace import run_folder, runs_folder
from tasks.showing.terminal import Terminal
from tasks.tracking.tracker import Tracking

FREE_TO_CHANGE = re.compile(
    r"run\.|tracking\.|launcher\.|keep_checkpoints$|.*\.save_steps$"
    rf"|(evaluation\.)?rewards\.\d+\.({'|'.join(JUDGE_OPERATION)})(\.|$)"
    rf"|(reward_models\.[^.]+\.labeler|promotion\.people)\.({'|'.join(WAITING)})$"
)
"""fields that a resumed run may have otherwise; `rounds` may grow besides"""


class RunFile(Record):
    """`run.json`: what a run started from."""

    name: str
    uid: str
    """tells runs of the same name in different workspaces apart"""
    config: dict[str, Any]
    created_ms: int
    rounds_asked: list[int]
    """`rounds` at first, then each value it was raised to"""
    initial_policy: Policy | None = None
    """what KL is measured from; a follow-on keeps its predecessor's. None until `prepare` found it"""
    given_policy: Policy | None = None
    """what round 0 measures"""
    predecessor: str | None = None
    reward_models: dict[str, ModelRef] = Field(default_factory=dict)
    """last accepted models of the predecessor"""
    curriculum: dict[str, Any] | None = None
    """epoch and pass rates that the predecessor's last training handed on"""


@dataclass(frozen=True)
class Run:
    """What every stage of a run needs at hand."""

    config: Config
    name: str
    folder: Path
    workspace: Path
    tracking: Tracking
    console: Terminal
    should_stop: Callable[[], bool]
    prefect_flow_run_id: str | None = None
    clock: Clock = field(default_factory=Clock)

    @property
    def file(self) -> RunFile:
        """What `run.json` says now."""
        return read_run(self.workspace, self.name)

    @property
    def given_policy(self) -> Policy:
        policy = self.file.given_policy
        assert policy is not None, "prepare(run) comes first"
        return policy

    @property
    def initial_policy(self) -> Policy:
        policy = self.file.initial_policy
        assert policy is not None, "prepare(run) comes first"
        return policy


def run_name(config: Config) -> str:
    assert config.run.name is not None, "load_config sets run.name"
    return config.run.name


def read_run(root: Path, name: str) -> RunFile:
    """The run's `run.json`.

    Raises:
        ConfigError: there is no such run, or its file does not fit.
    """
    path = run_folder(root, name) / "run.json"
    try:
        return RunFile.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        known = ", ".join(run_names(root)) or "none"
        raise ConfigError(f"no run {name!r} in {runs_folder(root)}; runs there: {known}") from error
    except ValidationError as error:
        raise ConfigError(
            f"{path} does not fit this version: {error}; give the run a new name with --run NAME"
        ) from error


def refuse_without_pairs(root: Path, config: Config) -> None:
    """
    Raises:
        ConfigError: reward models have nothing to learn from: there is no run of that name, and no file labels.
    """
    if not any(isinstance(model.labeler, FileLabeler) for model in config.trained_reward_models.values()):
        read_run(root, run_name(config))


def write_run(root: Path, file: RunFile) -> None:
    write_json(run_folder(root, file.name) / "run.json", file.model_dump(mode="json"))


def run_names(root: Path) -> list[str]:
    """Names of the workspace's runs, oldest first."""
    files = list(runs_folder(root).glob("*/run.json"))
    found = [RunFile.model_validate_json(path.read_bytes()) for path in files]
    return [file.name for file in sorted(found, key=lambda file: (file.created_ms, file.name))]


def open_run(root: Path, config: Config) -> RunFile:
    """Start the run that `config.run.name` names, or go on with it.

    Raises:
        ConfigError: the run was started with another configuration; the changed fields are named.
    """
    name = run_name(config)
    if not (run_folder(root, name) / "run.json").exists():
        return create_run(root, config)
    file = read_run(root, name)
    before = stored_config(file)
    if changes := list(_forbidden_changes(before, config)):
        raise ConfigError(
            f"run {name!r} was started with another configuration:\n"
            + "".join(f"  {change}\n" for change in changes)
            + "undo the change, or start a run of its own with --run NEWNAME"
        )
    if before != config:
        asked = sorted({*file.rounds_asked, config.rounds})
        file = file.model_copy(update={"config": config.model_dump(mode="json"), "rounds_asked": asked})
        write_run(root, file)
    return file


def ask_for_rounds(root: Path, name: str, rounds: int) -> None:
    """Note that the run has so many rounds, so that the added ones get problems of their own."""
    file = read_run(root, name)
    write_run(root, file.model_copy(update={"rounds_asked": sorted({*file.rounds_asked, rounds})}))


def create_run(root: Path, config: Config, **fields: Any) -> RunFile:
    """Write the `run.json` of a new run; `fields` are those of `RunFile` that a follow-on brings along."""
    file = RunFile(
        name=run_name(config),
        uid=uuid.uuid4().hex,
        config=config.model_dump(mode="json"),
        created_ms=int(time.time() * 1000),
        rounds_asked=[config.rounds],
        **fields,
    )
    write_run(root, file)
    return file


def stored_config(file: RunFile) -> Config:
    """The configuration that a run was started with, `rounds` as last raised."""
    return reader.stored_config(file.config, file.name)


def _forbidden_changes(before: Config, after: Config) -> Iterator[str]:
    """`name is X, was Y` for each name that a resumed run may not change."""
    old, new = (dict(flatten(config.model_dump(mode="json"))) for config in (before, after))
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) == new.get(name) or FREE_TO_CHANGE.match(name):
            continue
        if name == "rounds":
            if new["rounds"] < old["rounds"]:
                yield f"rounds is {new['rounds']}, was {old['rounds']} (it can only be raised)"
            continue
        yield f"{name} is {new.get(name, 'gone')!r}, was {old.get(name, 'not there')!r}"


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(`a.b.0.c`, leaf) for each leaf of nested mappings and lists; empty ones are leaves."""
    if isinstance(value, dict | list) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, child in items:
            yield from flatten(child, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def follow_on_name(root: Path, name: str) -> str:
    """`tiny` -> `tiny-0002` -> `tiny-0003`: the next free name of the chain."""
    base = re.sub(r"-\d{4}$", "", name)
    taken = [int(other[-4:]) for other in run_names(root) if re.fullmatch(re.escape(base) + r"-\d{4}", other)]
    return f"{base}-{max([1, *taken]) + 1:04d}"


def follow_on(root: Path, config: Config, predecessor: str) -> RunFile:
    """Start the run that comes after `predecessor`: from its champion, its accepted reward models and all its pairs, with
    its initial policy, and with shards and seeds of its own.

    Raises:
        ConfigError: the predecessor has not finished a round.
    """
    before, folder = read_run(root, predecessor), run_folder(root, predecessor)
    last = last_finished_round(folder)
    if last is None or before.given_policy is None:
        raise ConfigError(f"run {predecessor!r} has finished no round to follow on from; resume it first")
    champion = round_policy(folder, before.given_policy, last.state.champion.round, last.state.champion.id)
    name = follow_on_name(root, predecessor)
    following = config.model_dump(mode="json") | {"run": {"name": name}, "seed": follow_on_seed(config.seed, name)}
    _inherit(pair_files(folder, before=last.round + 1), run_folder(root, name) / INHERITED_PAIRS)
    if asked := review_files(folder, before=last.round + 1):
        _inherit(asked, run_folder(root, name) / INHERITED_REVIEW)
    return create_run(
        root,
        Config.model_validate(following),
        initial_policy=before.initial_policy,
        given_policy=champion.model_copy(update={"round": 0}),
        predecessor=predecessor,
        reward_models=_inherited_models(folder, config, before=last.round + 1, inherited=before.reward_models),
        curriculum=last.state.curriculum,
    )


def follow_on_seed(seed: int, name: str) -> int:
    """A seed of the follow-on's own; small enough to be typed."""
    return seed_for(seed, f"run {name}") % 10**9


def _inherit(files: list[Path], target: Path) -> None:
    write_atomic(target, b"".join(path.read_bytes() for path in files))


def _inherited_models(
    predecessor: Path, config: Config, *, before: int, inherited: dict[str, ModelRef]
) -> dict[str, ModelRef]:
    names = config.trained_reward_models
    found = {name: last_accepted(predecessor, name, before=before, inherited=inherited) for name in names}
    return {name: model for name, model in found.items() if model is not None}
