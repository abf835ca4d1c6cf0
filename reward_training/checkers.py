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
    """1.0 where math-verify finds the answer equal to the gold answer as mathematics, else 0.0."""
    library = importlib.import_module("math_verify")

    def parse(text: str) -> list[Any]:
        return list(library.parse(text, parsing_timeout=None))

    golds = parse(gold) if _has_math_marks(gold) else parse(f"${gold}$")
    readings = [answer] if _has_math_marks(answer) else [f"${answer}$", answer]
    return float(any(library.verify(golds, parse(reading), timeout_seconds=None) for reading in readings))


def _has_math_marks(text: str) -> bool:
    return re.search(r"\$|\\\(|\\\[|\\boxed", text) is not None
