"""Is an extracted answer right? Pure functions; nothing here evaluates text as code, and nothing imports torch."""

from __future__ import annotations

import functools
import importlib
import re
import unicodedata
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any

from reward_training.extraction import NUMBER

MAX_EXPONENT = 1000
"""a number with a larger exponent is compared as text: it cannot be a sensible answer and costs memory to expand"""


def exact(answer: str, gold: str) -> bool:
    """Equal as numbers where both are numbers, otherwise equal after normalising.

    >>> exact("1,000.0", "1000"), exact("Paris.", "paris"), exact("5", "6")
    (True, True, False)
    """
    left, right = as_number(answer), as_number(gold)
    if left is not None and right is not None:
        return left == right
    return normalised(answer) == normalised(gold)


def normalised(text: str) -> str:
    """Compatibility characters folded, case folded, white space collapsed, one full stop at the end left out."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.split()).removesuffix(".").strip()


def as_number(text: str) -> Decimal | None:
    """The whole text as one number, or None."""
    stripped = normalised(text)
    if not NUMBER.fullmatch(stripped):
        return None
    try:
        number = Decimal(stripped.replace(",", "").replace("\u2212", "-"))
    except InvalidOperation:
        return None
    return number if abs(number.adjusted()) <= MAX_EXPONENT else None


def reasoning_gym(answer: str, family: str, entry: dict[str, Any]) -> float:
    """The family's own score, usually in [0, 1]."""
    return float(_score_function(family)(answer, entry))


@functools.cache
def _score_function(family: str) -> Callable[[str, dict[str, Any]], float]:
    function: Callable[[str, dict[str, Any]], float] = importlib.import_module("reasoning_gym").get_score_answer_fn(
        family
    )
    return function


def math_verify(answer: str, gold: str) -> float:
    """1.0 where math-verify finds the answer equal to the gold answer as mathematics, else 0.0.

    In prose and in text with mathematics marked in it, the library looks for the answer; anything else is one formula.
    """
    library = importlib.import_module("math_verify")
    readings = [_formula(gold), _formula(answer)]
    if None in readings:
        return 0.0
    golds, answers = (list(library.parse(text, parsing_timeout=None)) for text in readings)
    return float(library.verify(golds, answers, timeout_seconds=None))


def _formula(text: str) -> str | None:
    """What math-verify is to read; None for a number too large to be written out.

    The library takes the 5 out of 5e999 and multiplies 5, e and 3 in $5e3$, so numbers are given to it without exponent.
    """
    if NUMBER.fullmatch(normalised(text)):
        number = as_number(text)
        return None if number is None else f"${number:f}$"
    marked = re.search(r"\$|\\\(|\\\[|\\boxed", text)
    prose = re.search(r"\s", text) and re.search(r"(?<![\\A-Za-z])[A-Za-z]{2,}", text)
    return text if marked or prose else f"${text}$"
