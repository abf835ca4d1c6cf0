"""Reward from a reward model: its score of the whole conversation, calibrated if the model was trained here.

The response in it is the completion's text, as in the pairs that the model is trained on. What the prompt began of the
response stays in the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from transformers import PreTrainedTokenizerBase

from configs.records import Completion, Problem
from configs.schema.rewards import ModelRewardConfig
from reward_training.reward import Unscored, Value, WorksElsewhere, WorksTogether
from reward_training.transformer.rendering import try_conversation_text


class Scorer(Protocol):
    """A reward model in this process or behind a server."""

    max_length: int
    tokenizer: PreTrainedTokenizerBase

    def encode(self, conversations: list[str]) -> list[list[int]]:
        """Token ids of the conversations."""
        ...

    def scores(self, conversations: list[str]) -> Sequence[Value]:
        """A raw score for each conversation of at most `max_length` tokens, or the reason why there is none."""
        ...

    def calibrated(self, scores: Sequence[float]) -> list[float]:
        """The scores as the model's calibration moves them."""
        ...


class ModelReward:
    def __init__(self, config: ModelRewardConfig, scorer: Scorer) -> None:
        self.name = config.name
        self.weight = config.weight
        self.sources = config.sources
        self._scorer = scorer

    def __call__(self, problems: Sequence[Problem], completions: Sequence[Completion]) -> list[Value]:
        """(score - mean) / std by the model's calibration; the raw score if it has none.

        Unscored over `max_length`, where the model's chat template does not take the response, and where a server gives no score.
        """
        tokenizer = self._scorer.tokenizer
        pairs = enumerate(zip(problems, completions, strict=True))
        tried = {i: try_conversation_text(tokenizer, problem.prompt, written.text) for i, (problem, written) in pairs}
        conversations = {i: text for i, text in tried.items() if text is not None}
        encoded = self._scorer.encode(list(conversations.values()))
        fits = {i: len(ids) <= self._scorer.max_length for i, ids in zip(conversations.keys(), encoded, strict=True)}
        fitting = [i for i, fit in fits.items() if fit]
        scores = self._scorer.scores([conversations[i] for i in fitting])
        values = dict(zip(fitting, map(self._value, scores), strict=True))
        return [values[i] if i in values else self._unscored(i in fits) for i in tried]

    def _value(self, score: Value) -> Value:
        return score if isinstance(score, Unscored) else self._scorer.calibrated([score])[0]

    def _unscored(self, is_rendered: bool) -> Unscored:
        if is_rendered:
            return Unscored(f"over max_length={self._scorer.max_length} tokens")
        return Unscored("its chat template does not take the response")


class ShardedModelReward(ModelReward, WorksTogether):
    """A reward from a model of which each rank holds a part."""


class ServedModelReward(ModelReward, WorksElsewhere):
    """A reward from a model behind a server, which scores finished groups while others are still being written."""
