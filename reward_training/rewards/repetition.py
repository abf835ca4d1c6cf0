"""Repetition reward: penalises repeated n-grams (arXiv 2502.03373, appendix C.2), shifted from [-1, 0] to [0, 1].

A policy tends to fill its length limit with loops, and an outcome reward ignores everything before the answer.
"""

from __future__ import annotations

from collections.abc import Sequence

from configs.records import Completion, Problem
from configs.schema.rewards import RepetitionRewardConfig


class RepetitionReward:
    def __init__(self, config: RepetitionRewardConfig) -> None:
        self.name = config.name
        self.weight = config.weight
        self.sources = config.sources
        self._ngram = config.ngram
        self._free = config.free

    def __call__(self, problems: Sequence[Problem], completions: Sequence[Completion]) -> list[float]:
        """1.0 if at most a share `free` of the n-grams is repeated, falling linearly to 0.0 if all are."""
        return [self._value(repeated_share(completion.token_ids, self._ngram)) for completion in completions]

    def _value(self, repeated: float) -> float:
        return min(1.0, (1.0 - repeated) / (1.0 - self._free))


def repeated_share(token_ids: Sequence[int], ngram: int) -> float:
    """Share of the n-grams that repeat an earlier one; 0.0 if there are no n-grams.

    >>> repeated_share([1, 2, 1, 2, 1], 2)  # (1, 2), (2, 1), (1, 2), (2, 1): two of four
    0.5
    """
    num_ngrams = len(token_ids) - ngram + 1
    if num_ngrams < 1:
        return 0.0
    distinct = {tuple(token_ids[start : start + ngram]) for start in range(num_ngrams)}
    return 1.0 - len(distinct) / num_ngrams
