"""REINFORCE (Williams 1992, equation 11): the policy gradient with a baseline that knows no groups.

A_i = r_i - b, and a response is one action: its log-probability is the sum over its tokens (`grpo_config.loss: dr_grpo`, which
divides by a constant). The baseline b is

- `none`: 0. Without a bias, and with the most variance: where all rewards are positive, every response is reinforced.
- `batch_mean`: the mean reward of the step's N responses. A response is part of its own baseline, so the gradient is
  (N - 1) / N of the unbiased one.
- `moving_average`: b_t = decay b_(t-1) + (1 - decay) mean reward of step t, as it was before the step, so without a bias; the
  first step has its own mean. It is part of the checkpoint, and a round begins anew.

A group is dead where it teaches nothing: every response has advantage 0.

    method: {kind: reinforce, baseline: moving_average}
"""

from __future__ import annotations

from typing import Any

import numpy as np

from configs.schema.methods.method import ReinforceMethod
from grpo_train.methods.method import all_count
from grpo_train.observers.observer import StepRecord
from grpo_train.updating.advantages import Advantages, Floats, Scored


class Reinforce:
    """Rewards minus a baseline; the moving average is carried from step to step."""

    in_loss = staticmethod(all_count)

    def __init__(self, method: ReinforceMethod) -> None:
        self.method = method
        self.average: float | None = None
        """mean reward of the steps before, for `moving_average`; None before the first"""

    def advantages(self, scored: Scored) -> Advantages:
        """A_i = r_i - b."""
        weighted, rewards = scored.weighted()
        known = ~np.isnan(rewards)
        values = np.where(known, rewards - self._baseline(rewards[known]), 0.0)
        contributions = np.where(known[:, None], weighted - self._baselines(weighted[known]), 0.0)
        dead = np.logical_not(np.abs(values).reshape(-1, scored.group_size).any(axis=1))
        return Advantages(values=values, rewards=rewards, dead=dead, contributions=contributions)

    def _baseline(self, rewards: Floats) -> float:
        mean = float(rewards.mean()) if rewards.size else 0.0
        match self.method.baseline:
            case "none":
                return 0.0
            case "batch_mean":
                return mean
            case "moving_average":
                return mean if self.average is None else self.average

    def _baselines(self, weighted: Floats) -> Floats:
        """(K,) the baseline's parts: each objective's own mean, and equal parts of what the average differs from their sum."""
        if self.method.baseline == "none" or not len(weighted):
            return np.zeros(weighted.shape[1])
        means = weighted.mean(axis=0)
        return np.asarray(means + (self._baseline(weighted.sum(axis=1)) - means.sum()) / len(means))

    def look(self, step: StepRecord) -> dict[str, float]:
        """Add the step's mean reward to the moving average."""
        rewards = step.advantages.rewards[~np.isnan(step.advantages.rewards)]
        baseline = self._baseline(rewards)
        if rewards.size:
            decay = self.method.decay if self.average is not None else 0.0
            self.average = decay * (self.average or 0.0) + (1 - decay) * float(rewards.mean())
        return {"policy/baseline": baseline}

    def state(self) -> dict[str, Any]:
        return {"average": self.average}

    def restore(self, state: dict[str, Any]) -> None:
        self.average = state["average"]
