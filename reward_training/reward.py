"""The interface of a reward: a name, a weight, and for each completion a value or the reason why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from configs.records import Completion, Problem


@dataclass(frozen=True)
class Unscored:
    """The result of a reward that could not score a completion. It counts as missing, never as 0."""

    reason: str


@dataclass(frozen=True)
class Stepwise:
    """A completion's value together with the values of its reasoning steps, from which it was computed."""

    value: float
    steps: tuple[tuple[int, float], ...]
    """(end of the step as an offset in characters from the start of the text, value) of each step"""


@dataclass(frozen=True)
class AtFault:
    """The result of a checker that failed through the response's fault. Its value is 0; the reason is kept."""

    reason: str


Value = float | Unscored
Found = Value | Stepwise | AtFault
"""everything that a reward may return for a completion"""


class Reward(Protocol):
    """A reward: its name, weight, and values for completions."""

    @property
    def name(self) -> str: ...

    @property
    def weight(self) -> float: ...

    def __call__(self, problems: Sequence[Problem], completions: Sequence[Completion]) -> Sequence[Found]:
        """A value for each completion; `problems` and `completions` are aligned one to one."""
        ...


@runtime_checkable
class Selective(Protocol):
    """A reward that scores the problems of some sources only."""

    @property
    def sources(self) -> Sequence[str] | None:
        """Names of these sources; None: all."""
        ...


def sources_of(reward: Reward) -> Sequence[str] | None:
    """Names of the sources whose problems the reward applies to, and is called for; None: all."""
    return reward.sources if isinstance(reward, Selective) else None


class WorksElsewhere:
    """Marker for a reward that computes in other processes or on other machines. Several threads may call it at once,
    and it may be called for finished groups while other responses are still being sampled."""


@runtime_checkable
class Metered(Protocol):
    """A reward that reports metrics of its calls, such as their cost and their failures."""

    def take_metrics(self) -> dict[str, float]:
        """Metrics of the calls since the last `take_metrics`."""
        ...


def take_metrics(rewards: Sequence[Reward]) -> dict[str, float]:
    """The metrics of all rewards that report any, merged into one dict."""
    return {
        key: value for reward in rewards if isinstance(reward, Metered) for key, value in reward.take_metrics().items()
    }
