"""The interface of observers: they look at each finished training step, add metrics and may keep state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from grpo_train.groups import CheckerOf, Groups
from grpo_train.updating.advantages import Advantages, Bools, Floats
from reward_training.transformer.positions import Positions


@dataclass(frozen=True)
class StepRecord:
    """One finished step: G problems with S responses each, N = G x S, under K objectives."""

    step: int
    """counts from 1"""
    objectives: Sequence[str]
    """(K,) names of the training rewards"""
    checker_of: CheckerOf
    """which reward says right or wrong, by source; it need not be an objective"""
    batch: Groups
    """the N responses of the step, those from the response cache included"""
    parts: Floats
    """(N, K) score of each response under each objective, NaN where it could not score or does not apply"""
    applies: Bools
    """(N, K) whether the objective applies to the response's problem"""
    advantages: Advantages
    """advantages of the batch's N responses"""
    refused: Groups
    """dead groups that were replaced by fresh ones"""
    refused_advantages: Advantages
    """advantages of the refused groups' responses"""
    num_refills: int
    """number of refill rounds that replaced them"""
    positions: Positions
    """token positions computed by sampling and by the update, on all ranks"""
    downsampled: Bools | None = None
    """(N,) which responses row sampling left out of the update; None where it is off"""
    metrics: dict[str, float] = field(default_factory=dict)
    """metrics of the update, of the step, and of the observers that looked before"""

    @property
    def right(self) -> list[bool | None]:
        """(N,) whether its checker calls each response right; None where that is unknown: the checker could not score it, or
        is none of the objectives."""
        return self.batch.right(self.checker_of)

    @property
    def checked(self) -> tuple[Floats, Bools]:
        """(N,) each response's value by its checker, NaN where unscored; (N,) whether it has one among the objectives."""
        rows = list(zip(self.batch.scores, self.batch.checkers(self.checker_of), strict=True))
        values = [score.parts.get(name) if name is not None else None for score, name in rows]
        return np.array(values, dtype=np.float64), np.array([name in score.parts for score, name in rows], np.bool_)

    @property
    def num_sampled_tokens(self) -> int:
        """Tokens that the step sampled, those of refused groups included."""
        return sum(len(completion.token_ids) for completion in self.batch.sampled + self.refused.sampled)

    @property
    def staleness(self) -> float:
        """Mean number of steps between the policies that wrote the step's responses and the one that learns from them."""
        return float(np.mean([self.step - completion.step for completion in self.batch.completions]))

    @property
    def pass_rates(self) -> dict[str, float]:
        """{problem key: share of right responses} among those that were sampled and scored; without the problems that have
        none, or no checker."""
        groups = self.batch + self.refused
        verdicts: dict[str, list[bool]] = {}
        rows = zip(groups.completions, groups.right(self.checker_of), groups.old, strict=True)
        for completion, is_right, is_old in rows:
            if is_right is not None and not is_old:
                verdicts.setdefault(completion.problem_key, []).append(is_right)
        return {key: sum(of_problem) / len(of_problem) for key, of_problem in verdicts.items()}


@runtime_checkable
class Observer(Protocol):
    """Looks at every step; checkpoints keep what it remembers, by `state` and `restore`."""

    def look(self, step: StepRecord) -> dict[str, float]:
        """The metrics to add to the step's."""

    def state(self) -> dict[str, Any]:
        """Plain JSON values."""

    def restore(self, state: dict[str, Any]) -> None:
        """Set what `state()` returned, after a round trip through JSON: tuples are lists, keys are strings."""
