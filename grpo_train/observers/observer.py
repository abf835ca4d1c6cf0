"""What looks at a step of training once it is done: one interface for its metrics and for what is carried to the next step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from grpo_train.groups import Groups
from grpo_train.objective.advantages import Advantages, Floats
from reward_training.transformer.positions import Positions


@dataclass(frozen=True)
class StepRecord:
    """One step: G problems with S responses each, N = G x S, under K objectives."""

    step: int
    """counts from 1"""
    objectives: Sequence[str]
    """(K,) names of the training rewards"""
    checker: str
    """name of the reward that says right or wrong; it need not be an objective"""
    batch: Groups
    """what the update learned from: N responses, those of the response cache included"""
    parts: Floats
    """(N, K) value of each objective, NaN where it could not score"""
    advantages: Advantages
    """of the batch"""
    refused: Groups
    """dead groups that gave way to fresh problems"""
    refused_advantages: Advantages
    num_refills: int
    """further rounds of sampling that replaced them"""
    positions: Positions
    """what forward passes computed, in sampling and in the update, on all ranks"""
    metrics: dict[str, float] = field(default_factory=dict)
    """of the update, and of all that looked before"""

    @property
    def right(self) -> list[bool] | None:
        """(N,) what the checker says of the batch; None where it is no objective."""
        return self.batch.right(self.checker) if self.checker in self.objectives else None

    @property
    def pass_rates(self) -> dict[str, float]:
        """{problem key: share of right responses} of those that this step sampled; empty where the checker is no objective."""
        if self.checker not in self.objectives:
            return {}
        groups = self.batch + self.refused
        verdicts: dict[str, list[bool]] = {}
        for completion, is_right, is_old in zip(
            groups.completions, groups.right(self.checker), groups.old, strict=True
        ):
            if not is_old:
                verdicts.setdefault(completion.problem_key, []).append(is_right)
        return {key: sum(of_problem) / len(of_problem) for key, of_problem in verdicts.items()}


class Observer(Protocol):
    """Looks at every step; `state` and `restore` carry what it remembers over a kill."""

    def look(self, step: StepRecord) -> dict[str, float]:
        """The metrics that it adds to the step's."""

    def state(self) -> dict[str, Any]:
        """Plain JSON values."""

    def restore(self, state: dict[str, Any]) -> None:
        """Become what `state()` told of, after JSON: tuples are lists, keys are strings."""
