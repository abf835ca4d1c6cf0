"""Good responses are kept and used again, so that fewer are sampled and a group that is all wrong gets one that is right.

Experience replay inside the group: of a problem that is asked again, up to `share` of the group's rows are kept responses
of earlier steps, and only the others are sampled (RLEP, arXiv 2507.07451, and RePO, arXiv 2506.09340, mix them in likewise;
ARPO, arXiv 2505.16282, does for groups that are all wrong). The group keeps its size, so its arithmetic stays what it is.

- Kept is what was right by the checker (value >= 1, where the checker is among the training rewards) and had a positive
  advantage: what a group that differs had more of than it expected. A group that is all right teaches nothing and gives nothing.
- A kept response enters the loss with the log-probabilities of the policy that wrote it: each token (each response for
  gspo) is weighted by the clipped ratio of eq. 3 of DeepSeekMath, arXiv 2402.03300, bounded by 1 + clip_range for a
  positive advantage, as truncated importance weights are (V-trace, arXiv 1802.01561). Sampled rows have the ratio 1.
- It is dropped when it is `max_age` steps old, when newer ones need its room, and when it is too far off the policy: with
  w = policy(response) / writer(response), the effective sample size (sum w)^2 / sum w^2 over the m kept responses of a batch
  must be at least `min_effective_share` of m, or those whose w is farthest from 1 leave until it is. One response alone has
  the share 1 whatever its w is; age and the clipping bound that.

The scores are those that the response got: the rewards of a round do not change, and every round starts with an empty
cache. What the weights do not correct is the choice of good ones: the group's mean is above what the policy itself
would get, so its own right answers are pushed less and its wrong ones more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from configs.records import Completion, Problem, Record, Score
from configs.schema.grpo import ResponseCacheConfig
from grpo_train.objective.advantages import Bools, Floats
from grpo_train.observers.observer import StepRecord

Item = TypeVar("Item")


class Kept(Record):
    """A response as it was written, with the scores that it got."""

    completion: Completion
    score: Score


@dataclass(frozen=True)
class Reuse:
    """The kept responses that a batch uses, each group's after its sampled ones."""

    group_size: int
    rows: list[list[Kept]]
    """for each problem of the batch, newest first"""

    @property
    def num_sampled(self) -> list[int]:
        """For each problem, how many responses are still to be sampled."""
        return [self.group_size - len(rows) for rows in self.rows]

    @property
    def is_old(self) -> Bools:
        """(N,) which rows of the whole batch are kept ones."""
        return np.array(self.join([False] * sum(self.num_sampled), lambda kept: True), dtype=np.bool_)

    def join(self, sampled: Iterable[Item], of_kept: Callable[[Kept], Item]) -> list[Item]:
        """(N) something of every row of the batch: of the sampled ones as given, of the kept ones by `of_kept`."""
        waiting = iter(sampled)
        whole: list[Item] = []
        for rows, number in zip(self.rows, self.num_sampled, strict=True):
            whole += [*islice(waiting, number), *map(of_kept, rows)]
        return whole

    def completions(self, sampled: Sequence[Completion]) -> list[Completion]:
        """Whole groups. `index` of a kept response is its place in this group; who wrote it when is in `policy_id`, `step`."""
        whole = self.join(sampled, lambda kept: kept.completion)
        places = [place % self.group_size for place in range(len(whole))]
        return [c if c.index == i else c.model_copy(update={"index": i}) for c, i in zip(whole, places, strict=True)]

    def scores(self, sampled: Sequence[Score]) -> list[Score]:
        """Of whole groups."""
        return self.join(sampled, lambda kept: kept.score)


def nothing_kept(problems: Sequence[Problem], group_size: int) -> Reuse:
    """Every group is sampled whole."""
    return Reuse(group_size, [[] for _ in problems])


@dataclass
class ResponseCache:
    """Kept responses of one training, in the order in which they were written."""

    config: ResponseCacheConfig
    group_size: int
    kept: list[Kept] = field(default_factory=list)
    num_dropped: int = 0
    """since `take` was called"""
    taken: dict[str, float] = field(default_factory=dict)
    """metrics of what the last `take` gave"""

    def take(
        self, step: int, problems: Sequence[Problem], log_ratios: Callable[[Sequence[Completion]], Floats]
    ) -> Reuse:
        """The kept responses for the groups of `problems` at `step`; those that are too old or too far off are dropped.

        Args:
            log_ratios: (m,) log of w for each of m responses, under the policy as it is.
        """
        if not self.config.share:
            return nothing_kept(problems, self.group_size)
        self.num_dropped = 0
        self._keep([kept for kept in self.kept if step - kept.completion.step <= self.config.max_age])
        metrics = self._drop_far([kept for rows in self._found(problems) for kept in rows], log_ratios)
        rows = self._found(problems)
        ages = [step - kept.completion.step for group in rows for kept in group]
        metrics["cache/used_share"] = len(ages) / (len(problems) * self.group_size)
        if ages:
            metrics["cache/age_mean"] = float(np.mean(ages))
        self.taken = metrics
        return Reuse(self.group_size, rows)

    def _found(self, problems: Sequence[Problem]) -> list[list[Kept]]:
        """Of each problem what is kept, newest first."""
        found: dict[str, list[Kept]] = {}
        for kept in reversed(self.kept):
            found.setdefault(kept.completion.problem_key, []).append(kept)
        return [found.get(problem.key, []) for problem in problems]

    def _drop_far(self, found: list[Kept], log_ratios: Callable[[Sequence[Completion]], Floats]) -> dict[str, float]:
        if not found:
            return {}
        logs = log_ratios([kept.completion for kept in found])
        near = near_enough(logs, self.config.min_effective_share)
        far = {id(kept) for kept, is_near in zip(found, near, strict=True) if not is_near}
        self._keep([kept for kept in self.kept if id(kept) not in far])
        return {"cache/effective_share": effective_share(logs)}

    def look(self, step: StepRecord) -> dict[str, float]:
        """Keep what the step sampled and may be used again."""
        batch = step.batch
        kept = self.add(batch.completions, batch.scores, step.advantages.means, step.right, batch.is_old)
        return self.taken | kept

    def add(
        self,
        completions: Sequence[Completion],
        scores: Sequence[Score],
        advantages: Floats,
        right: Sequence[bool] | None,
        is_old: Bools,
    ) -> dict[str, float]:
        """Keep the good ones of a batch that were just sampled; returns what the cache is now.

        Args:
            advantages: (N,) of the completions.
            right: what the checker says of each; None where it is not among the training rewards.
            is_old: (N,) which of them stand in the cache already.
        """
        if not self.config.share:
            return {}
        good = (advantages > 0) & ~is_old & (True if right is None else np.array(right))
        rows = zip(completions, scores, good, strict=True)
        self.kept += [Kept(completion=completion, score=score) for completion, score, is_good in rows if is_good]
        self._keep(self._newest())
        return {"cache/size": float(len(self.kept)), "cache/dropped": float(self.num_dropped)}

    def _newest(self) -> list[Kept]:
        """As many of a problem as a group may use, and `size` in all, oldest first."""
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
    """(sum w)^2 / (m sum w^2) of m weights given by their logs: 1 where all are equal, 1 / m where one outweighs the others.

    >>> round(effective_share(np.log([1.0, 1.0, 2.0])), 3)  # 4^2 / (3 * 6)
    0.889
    """
    weights = np.exp(log_ratios - log_ratios.max())
    return float(weights.sum() ** 2 / (len(weights) * (weights**2).sum()))


def near_enough(log_ratios: Floats, min_share: float) -> Bools:
    """(m,) which responses stay: those farthest from the ratio 1 leave until the rest has an effective share of `min_share`."""
    nearest = np.argsort(np.abs(log_ratios), kind="stable")
    number = len(nearest)
    while number > 1 and effective_share(log_ratios[nearest[:number]]) < min_share:
        number -= 1
    good = np.zeros(len(log_ratios), dtype=np.bool_)
    good[nearest[:number]] = True
    return good
