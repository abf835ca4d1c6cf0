"""GRPO (DeepSeekMath, arXiv 2402.03300, section 4.1.2): the rewards of a group, centred and divided by their spread.

`combination` chooses among its relatives: `scale` (GRPO, Dr. GRPO, the batch's std), `baseline`, `order` (GDPO). The
arithmetic and its sources are in `updating/advantages.py`, the losses of the family in `updating/loss.py`.
"""

from __future__ import annotations

from configs.schema.rewards import CombinationConfig
from grpo_train.methods.method import all_count
from grpo_train.updating.advantages import Advantages, Scored, group_advantages


class Grpo:
    """The method of the default configuration."""

    in_loss = staticmethod(all_count)

    def __init__(self, combination: CombinationConfig) -> None:
        self.combination = combination

    def advantages(self, scored: Scored) -> Advantages:
        """The group-relative advantages."""
        combination = self.combination
        return group_advantages(
            scored.parts,
            scored.weights,
            scored.group_size,
            order=combination.order,
            scale=combination.scale,
            baseline=combination.baseline,
            spread_floor=combination.reward_spread_floor,
            floors=scored.floors,
            alike=scored.alike,
        )
