"""Format reward: 1 if the response has the required format, otherwise 0.

A tag that the chat template opens at the end of the prompt counts as if the response had opened it.

A format is far easier to learn than an answer. Next to an outcome reward, keep its weight small and watch its share of
the advantage; otherwise the policy learns the format and forgets the answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from configs.records import Completion, Problem
from configs.schema.rewards import FormatRewardConfig


class FormatReward:
    def __init__(self, config: FormatRewardConfig) -> None:
        self.name = config.name
        self.weight = config.weight
        self.sources = config.sources
        self._pattern = None if config.pattern is None else re.compile(config.pattern, re.DOTALL)
        self._tags = config.tags

    def __call__(self, problems: Sequence[Problem], completions: Sequence[Completion]) -> list[float]:
        """1.0 or 0.0 for each completion."""
        return [float(self._fits(completion.response)) for completion in completions]

    def _fits(self, text: str) -> bool:
        if self._pattern is not None and self._pattern.search(text) is None:
            return False
        return not self._tags or has_tags(text, self._tags)


def has_tags(text: str, tags: Sequence[str]) -> bool:
    """Whether the text is these tags, each once, in order and not empty, with only white space between them.

    With the tags think and answer this is the format reward of DeepSeek-R1 (arXiv 2501.12948, section 2.2.2).

    >>> has_tags("<think>3 + 5</think> <answer>8</answer>", ["think", "answer"])
    True
    >>> has_tags("<think>3</think><think>5</think><answer>8</answer>", ["think", "answer"])
    False
    """
    if any(text.count(mark) != 1 for tag in tags for mark in (f"<{tag}>", f"</{tag}>")):
        return False
    parts = [rf"<{re.escape(tag)}>\s*\S.*</{re.escape(tag)}>" for tag in tags]
    return re.fullmatch(r"\s*" + r"\s*".join(parts) + r"\s*", text, re.DOTALL) is not None
