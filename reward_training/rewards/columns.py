"""Which columns of the data the configured rewards read, so that only these are kept with the problems."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from configs.errors import ConfigError
from configs.schema.rewards import OutcomeRewardConfig, PythonRewardConfig, RewardConfig
from reward_training.rewards.python_forms import named_columns
from reward_training.rewards.python_function import load_function


@dataclass(frozen=True)
class ColumnsRead:
    """Names of columns; those that the data does not have are of no consequence."""

    names: frozenset[str] = frozenset()
    """names that stand in reward functions"""
    choices: frozenset[str] = frozenset()
    """columns in which outcome rewards with `checker: choice` find the options"""


NO_COLUMNS = ColumnsRead()


def columns_read(rewards: Iterable[RewardConfig]) -> ColumnsRead:
    """The columns that rewards read. A function that cannot be imported reads none; the doctor refuses it."""
    names: set[str] = set()
    choices: set[str] = set()
    for reward in rewards:
        if isinstance(reward, OutcomeRewardConfig) and reward.checker == "choice":
            choices.add(reward.choices)
        if isinstance(reward, PythonRewardConfig):
            names |= _named(reward.function)
    return ColumnsRead(frozenset(names), frozenset(choices))


def _named(path: str) -> set[str]:
    try:
        return named_columns(load_function(path), path)
    except ConfigError:
        return set()
