"""Creates follow-on runs, which form a chain: `tiny`, `tiny-0002`, `tiny-0003`, ..."""

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
from tasks.runs.run_file import RunFile, create_run, on_day, read_run, run_names, stored_config
from tasks.runs.workspace import run_folder

SUFFIX = r"-\d{4}"


def runs_of_chain(root: Path, name: str) -> list[RunFile]:
    """The runs of the chain that `name` belongs to, oldest first."""
    base = re.escape(_base_name(name))
    return [read_run(root, other) for other in run_names(root) if re.fullmatch(f"{base}({SUFFIX})?", other)]


def _base_name(name: str) -> str:
    return re.sub(f"{SUFFIX}$", "", name)


def follow_on_name(root: Path, name: str) -> str:
    """The next free name of the chain: `tiny` -> `tiny-0002` -> `tiny-0003`."""
    base = _base_name(name)
    ordinals = [int(other[-4:]) for other in run_names(root) if re.fullmatch(re.escape(base) + SUFFIX, other)]
    return f"{base}-{max([1, *ordinals]) + 1:04d}"


def follow_on_seed(seed: int, name: str) -> int:
    """The follow-on's own seed, below 10**9 so that it is easily typed."""
    return seed_for(seed, f"run {name}") % 10**9


def follow_on(root: Path, config: Config, predecessor: str) -> RunFile:
    """Create the run that comes after `predecessor`.

    It starts from the predecessor's champion, accepted reward models and pairs, and keeps its initial policy and its date. It has
    its own seed and shards of problems.

    Raises:
        ConfigError: the predecessor has not finished a round.
    """
    predecessor_file, run_dir = read_run(root, predecessor), run_folder(root, predecessor)
    last_round = last_finished_round(run_dir)
    if last_round is None or predecessor_file.given_policy is None:
        raise ConfigError(f"run {predecessor!r} has finished no round to follow on from; resume it first")
    champion = round_policy(
        run_dir, predecessor_file.given_policy, last_round.state.champion.round, last_round.state.champion.id
    )
    name = follow_on_name(root, predecessor)
    dated = on_day(config, stored_config(predecessor_file).run.date)
    following = dated.model_dump(mode="json")
    following["run"]["name"], following["seed"] = name, follow_on_seed(config.seed, name)
    end = last_round.round + 1
    _concatenate(pair_files(run_dir, before=end), run_folder(root, name) / INHERITED_PAIRS)
    if asked := review_files(run_dir, before=end):
        _concatenate(asked, run_folder(root, name) / INHERITED_REVIEW)
    return create_run(
        root,
        Config.model_validate(following),
        initial_policy=predecessor_file.initial_policy,
        given_policy=champion.model_copy(update={"round": 0}),
        predecessor=predecessor,
        reward_models=last_accepted_models(
            run_dir, config.trained_reward_models, before=end, inherited=predecessor_file.reward_models
        ),
        curriculum=last_round.state.curriculum,
    )


def _concatenate(files: list[Path], target: Path) -> None:
    write_atomic(target, b"".join(path.read_bytes() for path in files))
