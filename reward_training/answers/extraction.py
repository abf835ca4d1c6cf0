"""The final answer in a text. Each extractor returns None where there is none."""

from __future__ import annotations

import re
from typing import Protocol

from configs.schema.rewards import OutcomeRewardConfig
from reward_training.answers.final_answer import final_answer

_WHOLE = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?"
_LEADING_POINT = r"(?<![\w.])\.\d+"
_SIGN = r"(?:(?<![\w)\]])[-+\u2212])?"
NUMBER = re.compile(rf"{_SIGN}(?:{_LEADING_POINT}|{_WHOLE})(?:[eE][-+]?\d+)?")
"""A sign (unless it stands between operands), digits of any script with commas between thousands, a fraction, an exponent."""


def last_number(text: str) -> str | None:
    """The last number as it is written.

    >>> last_number("12 apples at $1,250.50 each. In all: -3.")
    '-3'
    """
    found = None
    for match in NUMBER.finditer(text):
        found = match.group()
    return found


def last_tag(text: str, tag: str) -> str | None:
    """What stands in the last closed <tag>..</tag>, stripped.

    >>> last_tag("<answer>4</answer> no, <answer>5</answer>", "answer")
    '5'
    """
    end = text.rfind(f"</{tag}>")
    start = text.rfind(f"<{tag}>", 0, end) if end >= 0 else -1
    return text[start + len(tag) + 2 : end].strip() if start >= 0 else None


def whole(text: str) -> str | None:
    """The text without white space around it; None where nothing is left."""
    return text.strip() or None


class Extractor(Protocol):
    """Takes the answer out of a response to a prompt; None where there is none."""

    def __call__(self, text: str, prompt: str = "") -> str | None: ...


def extractor(config: OutcomeRewardConfig) -> Extractor:
    """The extractor that the configuration names."""

    def plainly(text: str, prompt: str = "") -> str | None:
        match config.extract:
            case "last_number":
                return last_number(text)
            case "tag":
                return last_tag(text, config.tag)
            case _:
                return whole(text)

    def strictly(text: str, prompt: str = "") -> str | None:
        return final_answer(
            text, config.extract, tag=config.tag, field=config.field, prompt=prompt, letters=config.checker == "choice"
        )

    return strictly if config.strict or config.extract not in ("last_number", "tag", "whole") else plainly
