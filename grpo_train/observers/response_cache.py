"""Caches good responses for later groups, to sample less and to give groups that are all wrong a right response.

Experience replay within the group: when a problem is asked again, up to `share` of its group's rows are cached
responses of earlier steps, and only the others are sampled (RLEP, arXiv 2507.07451, and RePO, arXiv 2506.09340, mix
them in the same way; ARPO, arXiv 2505.16282, does so for groups that are all wrong). The group keeps its size, so the
advantage formulas stand.

- A response is cached if the checker calls it right (value >= 1, where the checker is among the training rewards) and
  its advantage is positive. A group whose rewards are all equal has no positive advantage and adds nothing.
- A cached response is off-policy. It enters the loss with the log-probabilities of the policy that wrote it: each token
  (each response for gspo) is weighted by the clipped ratio of eq. 3 of DeepSeekMath, arXiv 2402.03300, bounded by
  1 + clip_range for a positive advantage, like truncated importance weights (V-trace, arXiv 1802.01561). Sampled rows
  have the ratio 1.
- It is dropped once it is more than `max_age` steps old, when newer responses need its room, and when it is too far
  off-policy: with w = policy(response) / writer(response), the effective sample size (sum w)^2 / sum w^2 over the m
  cached responses of a batch must be at least `min_effective_share` of m; until it is, the response whose w is farthest
  from 1 is dropped. A single response has the share 1 whatever its w; only its age and the clipping limit that.

Cached scores stay valid: rewards do not change within a round, and every round starts with an empty cache. The weights
do not correct for the selection of good responses, which raises the group's mean above what the policy itself would
get: the policy's own right answers are pushed up less and its wrong ones pushed down more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from configs.records import RIGHT, Completion, Problem, Record, Score
from configs.schema.grpo import ResponseCacheConfig
from grpo_train.observers.observer import StepRecord
from grpo_train.updating.advantages import Bools, Floats

Item = TypeVar("Item")


class Kept(Record):
    """A cached response with the scores that it got."""

    completion: Completion
    score: Score


@dataclass(frozen=True)
class Reuse:
    """The cached responses that a batch uses; in each group they follow the sampled ones."""

    group_size: int
    rows: list[list[Kept]]
    """the cached responses of each problem of the batch, newest first"""

    @property
    def num_sampled(self) -> list[int]:
        """For each problem, the number of responses that are still to be sampled."""
        return [self.group_size - len(rows) for rows in self.rows]

    @property
    def is_old(self) -> Bools:
        """(N,) True for the rows of the batch that come from the cache."""
        return np.array(self.join([False] * sum(self.num_sampled), lambda kept: True), dtype=np.bool_)

    def join(self, sampled: Iterable[Item], of_kept: Callable[[Kept], Item]) -> list[Item]:
        """(N,) one item per row of the batch: those of `sampled` in order, and `of_kept` of the cached ones."""
        remaining = iter(sampled)
        items: list[Item] = []
        for rows, num_sampled in zip(self.rows, self.num_sampled, strict=True):
            items += [*islice(remaining, num_sampled), *map(of_kept, rows)]
        return items

    def completions(self, sampled: Sequence[Completion]) -> list[Completion]:
        """(N,) completions of whole groups.

        A cached response gets its position in this group as `index`; its `policy_id` and `step` still say who wrote it
        and when.
        """
        whole = self.join(sampled, lambda kept: kept.completion)
        indices = [row % self.group_size for row in range(len(whole))]
        return [c if c.index == i else c.model_copy(update={"index": i}) for c, i in zip(whole, indices, strict=True)]

    def scores(self, sampled: Sequence[Score]) -> list[Score]:
        """(N,) scores of whole groups."""
        return self.join(sampled, lambda kept: kept.score)


def nothing_kept(problems: Sequence[Problem], group_size: int) -> Reuse:
    """No cached responses: all rows of every group are sampled."""
    return Reuse(group_size, [[] for _ in problems])


@dataclass
class ResponseCache:
    """The cached responses of one training, in the order in which they were cached."""

    config: ResponseCacheConfig
    group_size: int
    kept: list[Kept] = field(default_factory=list)
    num_dropped: int = 0
    """number of responses dropped since `take` was last called"""
    taken: dict[str, float] = field(default_factory=dict)
    """metrics of the last `take`"""

    def take(
        self, step: int, problems: Sequence[Problem], log_ratios: Callable[[Sequence[Completion]], Floats]
    ) -> Reuse:
        """Drop responses that are too old or too far off-policy; returns those to use in the groups of `problems`.

        Args:
            log_ratios: (m,) log w of each of m responses under the current policy.
        """
        if not self.config.share:
            return nothing_kept(problems, self.group_size)
        self.num_dropped = 0
        self._keep([kept for kept in self.kept if step - kept.completion.step <= self.config.max_age])
        metrics = self._drop_far([kept for rows in self._cached(problems) for kept in rows], log_ratios)
        rows = self._cached(problems)
        ages = [step - kept.completion.step for group in rows for kept in group]
        metrics["cache/used_share"] = len(ages) / (len(problems) * self.group_size)
        if ages:
            metrics["cache/age_mean"] = float(np.mean(ages))
        self.taken = metrics
        return Reuse(self.group_size, rows)

    def _cached(self, problems: Sequence[Problem]) -> list[list[Kept]]:
        """The cached responses of each problem, newest first."""
        by_problem: dict[str, list[Kept]] = {}
        for kept in reversed(self.kept):
            by_problem.setdefault(kept.completion.problem_key, []).append(kept)
        return [by_problem.get(problem.key, []) for problem in problems]

    def _drop_far(self, usable: list[Kept], log_ratios: Callable[[Sequence[Completion]], Floats]) -> dict[str, float]:
        if not usable:
            return {}
        logs = log_ratios([kept.completion for kept in usable])
        near = near_enough(logs, self.config.min_effective_share)
        far = {id(kept) for kept, is_near in zip(usable, near, strict=True) if not is_near}
        self._keep([kept for kept in self.kept if id(kept) not in far])
        return {"cache/effective_share": effective_share(logs)}

    def look(self, step: StepRecord) -> dict[str, float]:
        """Cache the good responses that the step sampled."""
        batch = step.batch
        values, has_checker = step.checked
        right = [
            bool(value >= RIGHT) if is_checked else None for value, is_checked in zip(values, has_checker, strict=True)
        ]
        kept = self.add(batch.completions, batch.scores, step.advantages.means, right, batch.is_old)
        return self.taken | kept

    def add(
        self,
        completions: Sequence[Completion],
        scores: Sequence[Score],
        advantages: Floats,
        right: Sequence[bool | None],
        is_old: Bools,
    ) -> dict[str, float]:
        """Cache the good ones among the newly sampled completions of a batch; returns the cache's metrics.

        Args:
            advantages: (N,) advantages of the completions.
            right: (N,) whether its checker calls each right, which it does not where it could not score it; None where it
                has none among the training rewards.
            is_old: (N,) which of them are in the cache already.
        """
        if not self.config.share:
            return {}
        good = (advantages > 0) & ~is_old & np.array([verdict is not False for verdict in right])
        rows = zip(completions, scores, good, strict=True)
        self.kept += [Kept(completion=completion, score=score) for completion, score, is_good in rows if is_good]
        self._keep(self._newest())
        return {"cache/size": float(len(self.kept)), "cache/dropped": float(self.num_dropped)}

    def _newest(self) -> list[Kept]:
        """The newest responses, oldest first: per problem no more than a group may use, and `size` in all."""
        newest: list[Kept] = []
        counts: Counter[str] = Counter()
        for kept in reversed(self.kept):
            key = kept.completion.problem_key
            if len(newest) < self.config.size and counts[key] < self.config.num_rows(self.group_size):
                newest.append(kept)
                counts[key] += 1
        return newest[::-1]

    def _keep(self, kept: list[Kept]) -> None:
        self.num_dropped += len(self.kept) - len(kept)
        self.kept = kept

    def state(self) -> dict[str, Any]:
        return {"kept": [kept.model_dump(mode="json") for kept in self.kept]}

    def restore(self, state: dict[str, Any]) -> None:
        self.kept = [Kept.model_validate(item) for item in state["kept"]]


def effective_share(log_ratios: Floats) -> float:
    """(sum w)^2 / (m sum w^2) of m weights given by their logs.

    It is 1 where all are equal, and 1 / m where one outweighs the others.

    >>> round(effective_share(np.log([1.0, 1.0, 2.0])), 3)  # 4^2 / (3 * 6)
    0.889
    """
    weights = np.exp(log_ratios - log_ratios.max())
    return float(weights.sum() ** 2 / (len(weights) * (weights**2).sum()))


def near_enough(log_ratios: Floats, min_share: float) -> Bools:
    """(m,) which responses to keep: the farthest from w = 1 go until the rest has an effective share of `min_share`."""
    nearest = np.argsort(np.abs(log_ratios), kind="stable")
    num_kept = len(nearest)
    while num_kept > 1 and effective_share(log_ratios[nearest[:num_kept]]) < min_share:
        num_kept -= 1
    is_kept = np.zeros(len(log_ratios), dtype=np.bool_)
    is_kept[nearest[:num_kept]] = True
    return is_kept
