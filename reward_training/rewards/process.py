"""Process reward: scores the reasoning steps instead of the final answer (process supervision, arXiv 2305.20050).

The steps of a text are its lines or sentences. With `checked_by: arithmetic` the equations in each step are verified.
With the name of another reward (a reward model or a judge), that reward scores the text up to the end of each step. A
response's value is the mean or the minimum over its steps (the paper's section 2.6 takes the product; the minimum is
from arXiv 2312.08935). With `per_step` the step values are kept, and a token's advantage depends on the steps that end
at it or later (`grpo_train/updating/step_advantages.py`). Left out: step labels by people.

Steps that cannot be checked (no equation, a judge that did not answer) are ignored, so a policy that stops writing
equations does not lower its mean. A response without any step to check gets `if_none`; it is unscored if the checker
failed on all its steps. Thoughts are reasoning and have steps too. The mark with which the prompt opens a thought is no
step, but the reward that checks the steps sees it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import fmean

from configs.records import Completion, Problem
from configs.schema.rewards import ProcessRewardConfig
from reward_training.answers.arithmetic import equations
from reward_training.reward import AtFault, Found, Reward, Stepwise, Unscored, Value, WorksTogether, is_called

SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
LINE_END = re.compile(r"\n+")


class ProcessReward:
    """Scores reasoning steps with `checker`, or by their equations if it is None."""

    def __init__(self, config: ProcessRewardConfig, checker: Reward | None = None) -> None:
        self.name = config.name
        self.weight = config.weight
        self.sources = config.sources
        self._config = config
        self._checker = checker

    def __call__(self, problems: Sequence[Problem], completions: Sequence[Completion]) -> list[Found]:
        """A value for each completion in the checker's range; that of arithmetic is [0, 1]."""
        ends = [step_ends(self._reasoning(completion.text), self._config.split) for completion in completions]
        if self._checker is None:
            checked: list[list[Found]] = [
                [*_arithmetic(c.text, text_ends)] for c, text_ends in zip(completions, ends, strict=True)
            ]
        else:
            checked = self._ask(self._checker, problems, completions, ends)
        return [self._reduced(*row) for row in zip(checked, ends, strict=True)]

    def _reasoning(self, text: str) -> str:
        return text if self._config.before is None else text.partition(self._config.before)[0]

    def _ask(
        self, checker: Reward, problems: Sequence[Problem], completions: Sequence[Completion], ends: list[list[int]]
    ) -> list[list[Found]]:
        """For each completion, the checker's value of the text up to the end of each step."""
        steps = [(i, end) for i, text_ends in enumerate(ends) for end in text_ends]
        prefixes = [completions[i].model_copy(update={"text": completions[i].text[:end]}) for i, end in steps]
        values = checker([problems[i] for i, _ in steps], prefixes) if is_called(checker, prefixes) else []
        checked: list[list[Found]] = [[] for _ in completions]
        for (i, _), value in zip(steps, values, strict=True):
            checked[i].append(value)
        return checked

    def _reduced(self, values: Sequence[Found], ends: Sequence[int]) -> Found:
        """A completion's value from the values of its steps."""
        numbers = [0.0 if isinstance(value, AtFault) else value for value in values]
        known = [(end, v) for end, v in zip(ends, numbers, strict=True) if not isinstance(v, Unscored | Stepwise)]
        steps = [(end, float(value)) for end, value in known]
        if steps:
            return self._value([value for _, value in steps], steps)
        failed = next((v for v in values if isinstance(v, Unscored) and v is not NOTHING_TO_CHECK), None)
        return self._config.if_none if failed is None else failed

    def _value(self, known: Sequence[float], steps: Sequence[tuple[int, float]]) -> Found:
        match self._config.reduce:
            case "mean":
                return fmean(known)
            case "min":
                return min(known)
            case "per_step":
                return Stepwise(fmean(known), tuple(steps))


class ShardedProcessReward(ProcessReward, WorksTogether):
    """A process reward checked by a model of which each rank holds a part."""


NOTHING_TO_CHECK = Unscored("no equation")


def _arithmetic(text: str, ends: Sequence[int]) -> list[Value]:
    """For each step, 1 if all its equations are right, 0 if one is wrong, NOTHING_TO_CHECK if it has none."""
    starts = [0, *ends]
    verdicts = [equations(text[start:end]) for start, end in zip(starts, ends, strict=False)]
    return [float(all(step)) if step else NOTHING_TO_CHECK for step in verdicts]


def step_ends(text: str, split: str) -> list[int]:
    """Character offset of the end of each step. Parts that are only white space are no steps.

    >>> step_ends("3 + 5 = 8. Then half.\\nDone", "sentences")
    [10, 21, 26]
    >>> step_ends("3 + 5 = 8. Then half.\\nDone", "lines")
    [21, 26]
    """
    pattern = SENTENCE_END if split == "sentences" else LINE_END
    ends, start = [], 0
    for cut in [*pattern.finditer(text), None]:
        end = len(text) if cut is None else cut.start()
        if text[start:end].strip():
            ends.append(end)
        start = end if cut is None else cut.end()
    return ends
