"""RLOO (arXiv 2402.14740, equation 8): REINFORCE in which each response's baseline is the mean reward of the group's others.

A_i = r_i - mean of r_j over j != i. The baseline does not depend on the response, so the gradient has no bias, and all
S responses to a problem are used. As in the paper a response is one action: its log-probability is the sum over its tokens
(`grpo_config.loss: dr_grpo`, which divides by a constant), and nothing is divided by a spread. Differences to the paper:
the KL term is part of the loss (`grpo_config.kl_coefficient`) instead of the reward, and off by default.

    method: {kind: rloo}
"""

from __future__ import annotations

from configs.schema.rewards import CombinationConfig
from grpo_train.methods.method import all_count
from grpo_train.updating.advantages import Advantages, Scored, group_advantages


class Rloo:
    """REINFORCE with a leave-one-out baseline."""

    in_loss = staticmethod(all_count)

    def __init__(self, combination: CombinationConfig) -> None:
        self.combination = combination

    def advantages(self, scored: Scored) -> Advantages:
        """A_i = r_i - mean of the others' rewards; 0 in a group whose rewards are equal."""
        return group_advantages(
            scored.parts,
            scored.weights,
            scored.group_size,
            scale="none",
            baseline="leave_one_out",
            spread_floor=self.combination.reward_spread_floor,
            floors=scored.floors,
            alike=scored.alike,
        )
