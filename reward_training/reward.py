"""What a reward is: a name, a weight, and a value or a reason for each completion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from configs.records import Completion, Problem


@dataclass(frozen=True)
class Unscored:
    """A reward could not score a completion. It counts as missing, never as 0."""

    reason: str


@dataclass(frozen=True)
class Stepwise:
    """A value with those of the steps of the reasoning that it comes from."""

    value: float
    steps: tuple[tuple[int, float], ...]
    """(number of characters of the text up to the step's end, value)"""


Value = float | Unscored
Found = Value | Stepwise
"""what a reward may return for a completion"""


class Reward(Protocol):
    """One objective."""

    @property
    def name(self) -> str: ...

    @property
    def weight(self) -> float: ...

    def __call__(self, problems: Sequence[Problem], completions: Sequence[Completion]) -> Sequence[Found]:
        """A value for each completion; `problems` and `completions` are aligned one to one."""
        ...


class WorksElsewhere:
    """Marks a reward whose work is done in other processes or on other machines: its calls may come from several threads, and
    begin while responses are still being written."""


@runtime_checkable
class Metered(Protocol):
    """A reward that tells what its calls took and how they ended."""

    def take_metrics(self) -> dict[str, float]:
        """Metrics of the calls since it was last asked."""
        ...


def take_metrics(rewards: Sequence[Reward]) -> dict[str, float]:
    """Those of all rewards that have some."""
    return {
        key: value for reward in rewards if isinstance(reward, Metered) for key, value in reward.take_metrics().items()
    }
