"""The final answer in a text. Each extractor returns None where there is none."""

from __future__ import annotations

import re
from collections.abc import Callable

from configs.reward_schema import OutcomeReward

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


def extractor(config: OutcomeReward) -> Callable[[str], str | None]:
    """The extractor that the configuration names."""
    match config.extract:
        case "last_number":
            return last_number
        case "tag":
            return lambda text: last_tag(text, config.tag)
        case "whole":
            return whole
