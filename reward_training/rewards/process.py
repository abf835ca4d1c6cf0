"""Reward for the steps of the reasoning, not for where it ends (process supervision, arXiv 2305.20050).

A text's steps are its lines or sentences. `checked_by: arithmetic` verifies the equations in each; the name of another reward has that
one look at the text up to the end of each step, as a reward model or a judge can. A response's value is the mean or the
minimum over its steps (the paper's section 2.6 takes the product; the minimum is arXiv 2312.08935's), or the steps are kept and
each moves its own tokens (`grpo_train/objective/step_advantages.py`). Left out: labels of steps that people gave.

A step that cannot be checked (no equation in it, a judge that did not answer) counts for nothing, so a policy that stops writing
equations is not punished by the mean: `if_none` says what a response without any checked step is worth.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import fmean

from configs.records import Completion, Problem
from configs.schema.rewards import ProcessRewardConfig
from reward_training.answers.arithmetic import equations
from reward_training.reward import Found, Reward, Stepwise, Unscored, Value

SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
LINE_END = re.compile(r"\n+")


class ProcessReward:
    """`checker` is the reward that looks at the steps; None for arithmetic."""

    def __init__(self, config: ProcessRewardConfig, checker: Reward | None = None) -> None:
        self.name = config.name
        self.weight = config.weight
        self._config = config
        self._checker = checker

    def __call__(self, problems: Sequence[Problem], completions: Sequence[Completion]) -> list[Found]:
        """Values in the checker's own range; arithmetic's are in [0, 1]."""
        ends = [step_ends(self._reasoning(completion.text), self._config.split) for completion in completions]
        if self._checker is None:
            checked: list[list[Found]] = [
                [*_arithmetic(c.text, of_text)] for c, of_text in zip(completions, ends, strict=True)
            ]
        else:
            checked = self._ask(self._checker, problems, completions, ends)
        return [self._reduced(*row) for row in zip(checked, ends, strict=True)]

    def _reasoning(self, text: str) -> str:
        return text if self._config.before is None else text.partition(self._config.before)[0]

    def _ask(
        self, checker: Reward, problems: Sequence[Problem], completions: Sequence[Completion], ends: list[list[int]]
    ) -> list[list[Found]]:
        """What the other reward says of each response up to each of its steps."""
        rows = [(row, end) for row, of_text in enumerate(ends) for end in of_text]
        drafts = [completions[row].model_copy(update={"text": completions[row].text[:end]}) for row, end in rows]
        values = checker([problems[row] for row, _ in rows], drafts) if rows else []
        checked: list[list[Found]] = [[] for _ in completions]
        for (row, _), value in zip(rows, values, strict=True):
            checked[row].append(value)
        return checked

    def _reduced(self, values: Sequence[Found], ends: Sequence[int]) -> Found:
        steps = [(end, value) for end, value in zip(ends, values, strict=True) if isinstance(value, float | int)]
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


NOTHING_TO_CHECK = Unscored("no equation")


def _arithmetic(text: str, ends: Sequence[int]) -> list[Value]:
    """1 where all equations of a step are right, 0 where one is wrong."""
    starts = [0, *ends]
    verdicts = [equations(text[start:end]) for start, end in zip(starts, ends, strict=False)]
    return [float(all(found)) if found else NOTHING_TO_CHECK for found in verdicts]


def step_ends(text: str, split: str) -> list[int]:
    """Where each step ends in the text; a step holds more than white space.

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
