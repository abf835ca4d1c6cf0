"""Problems with what was written to them and what it is worth: the border between sampling and learning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from configs.records import Completion, Problem, Score, is_right
from configs.schema.grpo import GrpoConfig
from grpo_train.objective.advantages import Bools, Floats


@dataclass(frozen=True)
class Groups:
    """G problems with a group of S responses each, group after group; N = G x S."""

    problems: list[Problem] = field(default_factory=list)
    """(G,)"""
    completions: list[Completion] = field(default_factory=list)
    """(N,)"""
    scores: list[Score] = field(default_factory=list)
    """(N,)"""
    old: list[bool] = field(default_factory=list)
    """(N,) which responses were not sampled for this step, but come from the response cache"""

    @property
    def group_size(self) -> int:
        return len(self.completions) // max(len(self.problems), 1)

    @property
    def asked(self) -> list[Problem]:
        """(N,) the problem of each response."""
        return [problem for problem in self.problems for _ in range(self.group_size)]

    @property
    def is_old(self) -> Bools:
        return np.array(self.old, dtype=np.bool_)

    @property
    def sampled(self) -> list[Completion]:
        """The responses that are not old."""
        return [completion for completion, is_old in zip(self.completions, self.old, strict=True) if not is_old]

    @property
    def sampled_scores(self) -> list[Score]:
        return [score for score, is_old in zip(self.scores, self.old, strict=True) if not is_old]

    def right(self, checker: str) -> list[bool]:
        """(N,) what the reward `checker` says of each response."""
        return [is_right(score.parts[checker]) for score in self.scores]

    def chosen(self, places: Sequence[int]) -> Groups:
        """The groups at `places`, in that order."""
        size = self.group_size
        rows = [row for place in places for row in range(place * size, (place + 1) * size)]
        return Groups(
            [self.problems[place] for place in places],
            [self.completions[row] for row in rows],
            [self.scores[row] for row in rows],
            [self.old[row] for row in rows],
        )

    def __add__(self, other: Groups) -> Groups:
        return Groups(
            self.problems + other.problems,
            self.completions + other.completions,
            self.scores + other.scores,
            self.old + other.old,
        )


def parts_matrix(scores: Sequence[Score], objectives: Sequence[str]) -> Floats:
    """(N, K) parts in the order of `objectives`, NaN where a reward could not score."""
    rows = [[np.nan if score.parts[name] is None else score.parts[name] for name in objectives] for score in scores]
    return np.array(rows, dtype=np.float64).reshape(len(scores), len(objectives))


def left_out(completions: Sequence[Completion], grpo: GrpoConfig) -> Bools:
    """(N,) which completions take no part in their group's baseline and in the loss: aborted or truncated ones, if so set."""
    aborted, truncated = grpo.early_stop.aborted == "leave_out", grpo.truncated == "leave_out"
    return np.array([(aborted and c.is_aborted) or (truncated and c.finish_reason == "length") for c in completions])


def without(parts: Floats, rows: Bools) -> Floats:
    """(N, K) parts with `rows` missing altogether: `group_advantages` keeps such rows out of mean and std."""
    return np.where(rows[:, None], np.nan, parts)
