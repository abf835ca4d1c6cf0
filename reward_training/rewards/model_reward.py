"""Reward from a reward model: its score of the whole conversation, calibrated if the model was trained here.

The response in it is the completion's text, as in the pairs that the model is trained on. What the prompt began of the
response stays in the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence

from configs.records import Completion, Problem
from configs.schema.rewards import ModelRewardConfig
from reward_training.reward import Unscored, Value
from reward_training.reward_models.scores import RewardModelScorer
from reward_training.transformer.rendering import try_conversation_text


class ModelReward:
    def __init__(self, config: ModelRewardConfig, scorer: RewardModelScorer) -> None:
        self.name = config.name
        self.weight = config.weight
        self.sources = config.sources
        self._scorer = scorer

    def __call__(self, problems: Sequence[Problem], completions: Sequence[Completion]) -> list[Value]:
        """(score - mean) / std by the model's calibration; the raw score if it has none.

        Unscored over `max_length`, and where the model's chat template does not take the response.
        """
        tokenizer = self._scorer.tokenizer
        pairs = enumerate(zip(problems, completions, strict=True))
        tried = {i: try_conversation_text(tokenizer, problem.prompt, written.text) for i, (problem, written) in pairs}
        conversations = {i: text for i, text in tried.items() if text is not None}
        encoded = self._scorer.encode(list(conversations.values()))
        fits = {i: len(ids) <= self._scorer.max_length for i, ids in zip(conversations.keys(), encoded, strict=True)}
        fitting = [i for i, fit in fits.items() if fit]
        scores = self._scorer.scores([conversations[i] for i in fitting])
        values = dict(zip(fitting, self._scorer.calibrated(scores), strict=True))
        return [values[i] if i in values else self._unscored(i in fits) for i in tried]

    def _unscored(self, is_rendered: bool) -> Unscored:
        if is_rendered:
            return Unscored(f"over max_length={self._scorer.max_length} tokens")
        return Unscored("its chat template does not take the response")
