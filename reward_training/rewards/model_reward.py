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
from reward_training.transformer.rendering import conversation_text


class ModelReward:
    def __init__(self, config: ModelRewardConfig, scorer: RewardModelScorer) -> None:
        self.name = config.name
        self.weight = config.weight
        self.sources = config.sources
        self._scorer = scorer

    def __call__(self, problems: Sequence[Problem], completions: Sequence[Completion]) -> list[Value]:
        """(score - mean) / std by the model's calibration; the raw score if it has none; Unscored over `max_length`."""
        tokenizer = self._scorer.tokenizer
        pairs = zip(problems, completions, strict=True)
        conversations = [conversation_text(tokenizer, problem.prompt, completion.text) for problem, completion in pairs]
        lengths = [len(ids) for ids in self._scorer.encode(conversations)]
        fitting = [i for i, length in enumerate(lengths) if length <= self._scorer.max_length]
        scores = self._scorer.scores([conversations[i] for i in fitting])
        values = dict(zip(fitting, self._scorer.calibrated(scores), strict=True))
        return [values[i] if i in values else self._too_long() for i in range(len(lengths))]

    def _too_long(self) -> Unscored:
        return Unscored(f"over max_length={self._scorer.max_length} tokens")
