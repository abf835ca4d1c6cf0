"""The interface of a reward: a name, a weight, and for each completion a value or the reason why there is none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MappingView, Sequence, Set, Sized
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, runtime_checkable

from configs.errors import RewardError
from configs.records import Completion, Problem

SHOWN_CHARACTERS = 80


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


def one_each(results: Any, num_completions: int, who: str) -> list[Any]:
    """What a reward returned, as a list; at most one value more than there are completions of what may be endless.

    Raises:
        RewardError: it is no sequence in the order of the completions; `who` begins the message.
    """
    if (what := _unordered(results)) is not None:
        raise RewardError(f"{who} returned {what}; return a list with a number for each completion, in their order")
    values: Iterable[Any] = results
    return list(values) if isinstance(results, Sized) else list(islice(values, num_completions + 1))


def _unordered(results: Any) -> str | None:
    """What the results are, if they are no sequence of values in the order of the completions."""
    kind = type(results).__name__
    if isinstance(results, Mapping | Set | MappingView):
        return f"a {kind}, which has an order of its own"
    if isinstance(results, str | bytes | bytearray) or not isinstance(results, Iterable):
        return repr(results)[:SHOWN_CHARACTERS] if isinstance(results, bool | int | float | str | None) else f"a {kind}"
    if (shape := getattr(results, "shape", None)) is not None and len(shape) != 1:
        return f"a {kind} of shape {tuple(shape)}"
    if hasattr(results, "iloc") and (index := list(getattr(results, "index", ()))) != list(range(len(index))):
        return f"a {kind} with an index of its own, {index[:4]}"
    return None


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


class WorksTogether:
    """Marker for a reward that the ranks of a training compute together, each for its own completions. All ranks call it
    equally often, also one without a completion."""


def is_called(reward: Reward, completions: Sequence[Completion]) -> bool:
    """Whether a reward is called for these completions, of which there may be none."""
    return bool(completions) or isinstance(reward, WorksTogether)


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
