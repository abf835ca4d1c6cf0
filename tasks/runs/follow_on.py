"""The run that comes after a finished one, and the chain of them: `tiny`, `tiny-0002`, `tiny-0003`, ..."""

from __future__ import annotations

import re
from pathlib import Path

from configs.disk.files import write_atomic
from configs.errors import ConfigError
from configs.schema.config import Config
from configs.seeds import seed_for
from tasks.runs.history import (
    INHERITED_PAIRS,
    INHERITED_REVIEW,
    last_accepted_models,
    last_finished_round,
    pair_files,
    review_files,
    round_policy,
)
from tasks.runs.run_file import RunFile, create_run, read_run, run_names
from tasks.runs.workspace import run_folder

SUFFIX = r"-\d{4}"


def runs_of_chain(root: Path, name: str) -> list[RunFile]:
    """The runs of one chain, oldest first."""
    base = re.escape(_base_name(name))
    return [read_run(root, other) for other in run_names(root) if re.fullmatch(f"{base}({SUFFIX})?", other)]


def _base_name(name: str) -> str:
    return re.sub(f"{SUFFIX}$", "", name)


def follow_on_name(root: Path, name: str) -> str:
    """`tiny` -> `tiny-0002` -> `tiny-0003`: the next free name of the chain."""
    base = _base_name(name)
    taken = [int(other[-4:]) for other in run_names(root) if re.fullmatch(re.escape(base) + SUFFIX, other)]
    return f"{base}-{max([1, *taken]) + 1:04d}"


def follow_on_seed(seed: int, name: str) -> int:
    """A seed of the follow-on's own; small enough to be typed."""
    return seed_for(seed, f"run {name}") % 10**9


def follow_on(root: Path, config: Config, predecessor: str) -> RunFile:
    """Start the run that comes after `predecessor`: from its champion, its accepted reward models and all its pairs, with
    its initial policy, and with shards and seeds of its own.

    Raises:
        ConfigError: the predecessor has not finished a round.
    """
    before, run_dir = read_run(root, predecessor), run_folder(root, predecessor)
    last = last_finished_round(run_dir)
    if last is None or before.given_policy is None:
        raise ConfigError(f"run {predecessor!r} has finished no round to follow on from; resume it first")
    champion = round_policy(run_dir, before.given_policy, last.state.champion.round, last.state.champion.id)
    name = follow_on_name(root, predecessor)
    following = config.model_dump(mode="json") | {"run": {"name": name}, "seed": follow_on_seed(config.seed, name)}
    end = last.round + 1
    _concatenate(pair_files(run_dir, before=end), run_folder(root, name) / INHERITED_PAIRS)
    if asked := review_files(run_dir, before=end):
        _concatenate(asked, run_folder(root, name) / INHERITED_REVIEW)
    return create_run(
        root,
        Config.model_validate(following),
        initial_policy=before.initial_policy,
        given_policy=champion.model_copy(update={"round": 0}),
        predecessor=predecessor,
        reward_models=last_accepted_models(
            run_dir, config.trained_reward_models, before=end, inherited=before.reward_models
        ),
        curriculum=last.state.curriculum,
    )


def _concatenate(files: list[Path], target: Path) -> None:
    write_atomic(target, b"".join(path.read_bytes() for path in files))
