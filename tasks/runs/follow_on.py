"""Chains: a run and its follow-ons, joined by the predecessor that each one's run.json names.

A follow-on of `tiny` is called `tiny-0002`, the next `tiny-0003`; the names say nothing of what belongs together.
"""

from __future__ import annotations

import json
import re
from itertools import count
from pathlib import Path

from configs.disk.files import write_atomic
from configs.errors import ConfigError
from configs.records import Policy
from configs.schema.config import Config
from configs.seeds import seed_for
from tasks.runs.champions import champions
from tasks.runs.cleaned import refuse_cleaned
from tasks.runs.history import (
    INHERITED_CURRICULUM,
    curriculum_before,
    last_accepted_models,
    last_finished_round,
)
from tasks.runs.lineage import inheritance, refuse_lost
from tasks.runs.run_file import RunFile, create_run, on_day, read_run, run_files, run_names, stored_config
from tasks.runs.workspace import run_folder

NAME_LENGTH = 64
"""longest name of a run"""


def chain_name(root: Path, run_name: str) -> str:
    """The name of a run's chain, which is that of its first run.

    It is found by the predecessors in run.json, whatever the runs are called. Where a run's folder is gone, or there is
    none yet, that is the first known name.
    """
    return _first_name({file.name: file for file in run_files(root)}, run_name)


def policy_model(root: Path, run_name: str) -> str:
    """Name of the registered model that holds the policies of the run's chain."""
    return f"{chain_name(root, run_name)}-policy"


def runs_of_chain(root: Path, run_name: str) -> list[RunFile]:
    """The runs of the chain that `run_name` belongs to, oldest first; none if there is no such run."""
    files = run_files(root)
    by_name = {file.name: file for file in files}
    first = _first_name(by_name, run_name)
    return [file for file in files if _first_name(by_name, file.name) == first]


def _first_name(files: dict[str, RunFile], name: str) -> str:
    passed: set[str] = set()
    while name in files and (before := files[name].predecessor) is not None and name not in passed:
        passed.add(name)
        name = before
    return name


def follow_on_name(root: Path, run_name: str) -> str:
    """The chain's next name that no other run has: `tiny` -> `tiny-0002` -> `tiny-0003`.

    Raises:
        ConfigError: it is longer than a name of a run may be.
    """
    first, taken = chain_name(root, run_name), set(run_names(root))
    pattern = re.compile(re.escape(first) + r"-(\d{4,})")
    members = [match for file in runs_of_chain(root, run_name) if (match := pattern.fullmatch(file.name))]
    last = max((int(match[1]) for match in members), default=1)
    name = next(name for number in count(last + 1) if (name := f"{first}-{number:04d}") not in taken)
    if len(name) > NAME_LENGTH:
        raise ConfigError(
            f"run {first!r} is followed by {name!r}, which is longer than the {NAME_LENGTH} characters of a name; "
            "start a run of a shorter name with --run NEWNAME"
        )
    return name


def follow_on_seed(seed: int, name: str) -> int:
    """The follow-on's own seed, below 10**9 so that it is easily typed."""
    return seed_for(seed, f"run {name}") % 10**9


def follow_on(root: Path, config: Config, predecessor: str) -> RunFile:
    """Create the run that comes after `predecessor`.

    It starts from the chain's champion, which is the predecessor's unless that was rolled back, from its accepted reward models and pairs, and keeps its initial policy and its date. It has
    its own seed and shards of problems.

    Raises:
        ConfigError: the predecessor has not finished a round, or files of an earlier run are gone.
    """
    predecessor_file, run_dir = read_run(root, predecessor), run_folder(root, predecessor)
    last_round = last_finished_round(run_dir)
    if last_round is None or predecessor_file.given_policy is None:
        raise ConfigError(f"run {predecessor!r} has finished no round to follow on from; resume it first")
    champion = champions(root, [file.name for file in runs_of_chain(root, predecessor)])[-1]
    refuse_cleaned(Path(champion.path))
    name = follow_on_name(root, predecessor)
    dated = on_day(config, stored_config(predecessor_file).run.date)
    following = dated.model_dump(mode="json")
    following["run"]["name"], following["seed"] = name, follow_on_seed(config.seed, name)
    end = last_round.round + 1
    refuse_lost(run_dir)
    if (curriculum := curriculum_before(run_dir, end, inherited=predecessor_file.curriculum)) is not None:
        write_atomic(run_folder(root, name) / INHERITED_CURRICULUM, json.dumps(curriculum).encode())
    return create_run(
        root,
        Config.model_validate(following),
        initial_policy=predecessor_file.initial_policy,
        given_policy=Policy(path=champion.path, id=champion.policy_id, round=0),
        predecessor=predecessor,
        inherited=inheritance(run_dir, before=end),
        reward_models=last_accepted_models(
            run_dir, config.trained_reward_models, before=end, inherited=predecessor_file.reward_models
        ),
    )
