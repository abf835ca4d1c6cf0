"""Best-of-N, repeated at each step (RAFT, arXiv 2304.06767, algorithm 1): the policy imitates its best response to each problem.

Of the `group_size` responses to a problem the one with the highest weighted sum of rewards is kept, the first of equal ones,
and the policy is fine-tuned on it: the gradient of the mean log-likelihood of the kept responses' tokens, which is that of
supervised fine-tuning. A policy gradient with advantage 1 for what is kept, over a loss that counts nothing else
(`grpo_config.loss: dapo`), is the same, since the ratio is 1.

`min_score` keeps out problems whose best response is bad (a group of wrong answers has a best one too). Differences to
the paper: each step's responses are written by the policy of that step, and learned from once.

    method: {kind: best_of_n, min_score: 0.5}
"""

from __future__ import annotations

import numpy as np

from configs.schema.methods.method import BestOfNMethod
from grpo_train.updating.advantages import Advantages, Bools, Floats, Scored


class BestOfN:
    """Advantage 1 for the best response of a group, and no other response."""

    def __init__(self, method: BestOfNMethod) -> None:
        self.min_score = -np.inf if method.min_score is None else method.min_score

    def advantages(self, scored: Scored) -> Advantages:
        """1 for the best response of each group if it is over `min_score`, 0 for the others."""
        weighted, rewards = scored.weighted()
        groups = np.where(np.isnan(rewards), -np.inf, rewards).reshape(-1, scored.group_size)
        best = groups.argmax(axis=1)
        kept = (groups.max(axis=1) > self.min_score) & np.isfinite(groups.max(axis=1))
        values = np.zeros_like(groups)
        values[np.flatnonzero(kept), best[kept]] = 1.0
        flat = values.reshape(-1)
        return Advantages(values=flat, rewards=rewards, dead=~kept, contributions=_shares(weighted) * flat[:, None])

    def in_loss(self, advantages: Advantages) -> Bools:
        """(N,) those that are imitated."""
        return np.asarray(advantages.values > 0)


def _shares(weighted: Floats) -> Floats:
    """(N, K) each objective's share of a response's summed absolute weighted scores."""
    absolute = np.abs(weighted)
    return np.asarray(absolute / np.maximum(absolute.sum(axis=1, keepdims=True), 1e-12))
