"""Groups of responses with their scores: what sampling hands to learning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from configs.records import Completion, Problem, Score, verdict
from configs.schema.grpo import GrpoConfig
from grpo_train.updating.advantages import Bools, Floats, Ints

CheckerOf = Callable[[str], str | None]
"""{source: name of the reward that decides whether a response to its problems is right}; None where none does"""


@dataclass(frozen=True)
class Groups:
    """G problems with S responses each. Rows are ordered group by group, N = G x S."""

    problems: list[Problem] = field(default_factory=list)
    """(G,)"""
    completions: list[Completion] = field(default_factory=list)
    """(N,)"""
    scores: list[Score] = field(default_factory=list)
    """(N,)"""
    old: list[bool] = field(default_factory=list)
    """(N,) True where the response comes from the response cache and was not sampled for this step"""

    @property
    def group_size(self) -> int:
        return len(self.completions) // max(len(self.problems), 1)

    @property
    def asked(self) -> list[Problem]:
        """(N,) the problem that each response answers."""
        return [problem for problem in self.problems for _ in range(self.group_size)]

    @property
    def is_old(self) -> Bools:
        return np.array(self.old, dtype=np.bool_)

    @property
    def sampled(self) -> list[Completion]:
        """The responses that were sampled for this step."""
        return [completion for completion, is_old in zip(self.completions, self.old, strict=True) if not is_old]

    @property
    def sampled_scores(self) -> list[Score]:
        return [score for score, is_old in zip(self.scores, self.old, strict=True) if not is_old]

    def checkers(self, checker_of: CheckerOf) -> list[str | None]:
        """(N,) name of the reward that decides on each response; None where none does."""
        return [name for problem in self.problems for name in [checker_of(problem.source)] * self.group_size]

    def right(self, checker_of: CheckerOf) -> list[bool | None]:
        """(N,) whether each response is right; None where its checker could not score it, or it has none."""
        return [verdict(*row) for row in zip(self.scores, self.checkers(checker_of), strict=True)]

    def chosen(self, indices: Sequence[int]) -> Groups:
        """The groups at `indices`, in that order."""
        size = self.group_size
        rows = [row for i in indices for row in range(i * size, (i + 1) * size)]
        return Groups(
            [self.problems[i] for i in indices],
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
    """(N, K) score of each response under each of `objectives`, NaN where it has none."""
    rows = [[score.parts.get(name) for name in objectives] for score in scores]
    return np.array(rows, dtype=np.float64).reshape(len(scores), len(objectives))


def applies_matrix(scores: Sequence[Score], objectives: Sequence[str]) -> Bools:
    """(N, K) whether each of `objectives` applies to the response's problem, scored or not."""
    rows = [[name in score.parts for name in objectives] for score in scores]
    return np.array(rows, dtype=np.bool_).reshape(len(scores), len(objectives))


def alike(applies: Bools, weights: Floats, group_size: int) -> Ints:
    """(G,) a number for each group, the same for those to which the same weighted objectives apply.

    `applies` is (N, K), `weights` (K,).
    """
    weighted = applies[::group_size, weights != 0]
    return np.asarray(weighted @ (1 << np.arange(weighted.shape[1])))  # one bit for each objective


def left_out(completions: Sequence[Completion], grpo: GrpoConfig) -> Bools:
    """(N,) which completions stay out of baseline and loss: aborted or truncated ones, if so configured."""
    aborted, truncated = grpo.early_stop.aborted == "leave_out", grpo.truncated == "leave_out"
    return np.array([(aborted and c.is_aborted) or (truncated and c.finish_reason == "length") for c in completions])


def without(parts: Floats, rows: Bools) -> Floats:
    """(N, K) parts with NaN in all of `rows` (N,), which `group_advantages` keeps out of mean and std."""
    return np.where(rows[:, None], np.nan, parts)
