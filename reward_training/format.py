"""Reward 1 where a pattern is found in the text, else 0.

A format is far easier to learn than an answer: beside an outcome reward keep its weight small and watch its share of
the advantage, or the policy learns the form and forgets the answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from configs import reward_schema
from configs.records import Completion, Problem


class FormatReward:
    def __init__(self, config: reward_schema.FormatReward) -> None:
        self.name = config.name
        self.weight = config.weight
        self._pattern = re.compile(config.pattern, re.DOTALL)

    def __call__(self, problems: Sequence[Problem], completions: Sequence[Completion]) -> list[float]:
        """1.0 or 0.0 for each completion."""
        return [float(self._pattern.search(completion.text) is not None) for completion in completions]
