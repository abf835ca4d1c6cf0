"""Length reward: DAPO's soft penalty for long responses (arXiv 2503.14476, equation 13), from [-1, 0] to [0, 1].

Unlike the paper, it also penalises responses below a shortest length: what is trained on this reward (above all a
reward model) learns that shorter is better, and would end at empty responses.
"""

from __future__ import annotations

from collections.abc import Sequence

from configs.records import Completion, Problem
from configs.schema.rewards import LengthRewardConfig


class LengthReward:
    def __init__(self, config: LengthRewardConfig) -> None:
        self.name = config.name
        self.weight = config.weight
        self.sources = config.sources
        self._target = config.target
        self._limit = config.limit
        self._shortest = config.shortest

    def __call__(self, problems: Sequence[Problem], completions: Sequence[Completion]) -> list[float]:
        """1.0 from `shortest` to `target` tokens, falling linearly to 0.0 at `limit` and at 0; the end token counts."""
        return [self._value(len(completion.token_ids)) for completion in completions]

    def _value(self, num_tokens: int) -> float:
        if num_tokens < self._shortest:
            return num_tokens / self._shortest
        return min(1.0, max(0.0, (self._limit - num_tokens) / (self._limit - self._target)))
