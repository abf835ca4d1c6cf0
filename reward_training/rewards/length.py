"""Soft punishment of length, after DAPO's overlong reward (arXiv 2503.14476, equation 13), moved from [-1, 0] to [0, 1].

Beside the paper's there is a lower end: whoever learns from this reward (a reward model above all) takes from it that shorter is
better, and goes on to where nothing is said any more.
"""

from __future__ import annotations

from collections.abc import Sequence

from configs.records import Completion, Problem
from configs.schema.rewards import LengthRewardConfig


class LengthReward:
    def __init__(self, config: LengthRewardConfig) -> None:
        self.name = config.name
        self.weight = config.weight
        self._target = config.target
        self._limit = config.limit
        self._shortest = config.shortest

    def __call__(self, problems: Sequence[Problem], completions: Sequence[Completion]) -> list[float]:
        """1.0 from `shortest` to `target` tokens, falling in straight lines to 0.0 at `limit` and at 0; the end token counts."""
        return [self._value(len(completion.token_ids)) for completion in completions]

    def _value(self, num_tokens: int) -> float:
        if num_tokens < self._shortest:
            return num_tokens / self._shortest
        return min(1.0, max(0.0, (self._limit - num_tokens) / (self._limit - self._target)))
