"""Whether the sums that stand in a text are right: equations of numbers, by exact fractions; nothing is evaluated as code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

MAX_DIGITS = 40
"""of one number; longer ones are no sum that somebody wrote down"""
MAX_TOKENS = 64
"""of one side"""

SIGNS = str.maketrans({"×": "*", "·": "*", "⋅": "*", "÷": "/", "\u2212": "-", "–": "-"})
NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
TOKEN = re.compile(rf"\s*({NUMBER}|[-+*/()])")
IN_SUMS = "-+*/().,0123456789$% \t\n"
BREAK = re.compile(r"[.,]\s|\n")
"""between a sum and what stands beside it"""


def equations(text: str) -> list[bool]:
    """For each equation of numbers in the text with at least one operator, whether it is right.

    A number with decimals is right to within half of its last place: 2 / 3 = 0.67. The time that it takes grows with the text's length,
    not with its square.

    >>> equations("17 + 25 = 42, and half of it: 42 / 2 = 22")
    [True, False]
    >>> equations("x = 5, so the answer is 5")
    []
    """
    found = []
    for before, after in pairwise(_plain(text).split("=")):
        left, right = _left_of(before), _right_of(after)
        if left is None or right is None or (left.is_bare and right.is_bare):
            continue  # no expression of numbers, or two bare numbers: no sum
        found.append(abs(left.value - right.value) <= max(left.last_place, right.last_place) / 2)
    return found


def _plain(text: str) -> str:
    """One sign for each operation; LaTeX's and Markdown's decoration left out."""
    text = text.replace("\\times", "*").replace("\\cdot", "*").replace("\\div", "/").replace("**", "")
    text = re.sub(r"\\frac\{([^{}]*)\}\{([^{}]*)\}", r"(\1)/(\2)", text)
    text = re.sub(r"(?<=\d) ?x ?(?=\d)", "*", text)
    return text.translate(SIGNS).replace("\\(", "").replace("\\)", "").replace("\\,", "")


@dataclass(frozen=True)
class _Side:
    """One side of an equation."""

    value: Fraction
    last_place: Fraction
    """size of its last decimal; 0 where it is exact"""
    is_bare: bool
    """one number alone"""


def _left_of(before: str) -> _Side | None:
    """The expression at the end of a text; None where it is only the end of a longer one: x + 2 + 3."""
    rest = before.rstrip(IN_SUMS)
    whole = before[len(rest) :]
    run = BREAK.split(whole)[-1]
    if len(run) == len(whole) and (rest[-1:].isalnum() or rest[-1:] in tuple(")]}^_")):
        starts_apart = run[:1].isspace() and run.lstrip()[:1] not in tuple("+-*/")
        if not starts_apart:
            return None
    return _side(run)


def _right_of(after: str) -> _Side | None:
    """The expression at the beginning of a text; None where it is only the beginning of a longer one: 5x."""
    rest = after.lstrip(IN_SUMS)
    whole = after[: len(after) - len(rest)]
    run = BREAK.split(whole)[0]
    if len(run) == len(whole) and run[-1:].isdigit() and (rest[:1].isalpha() or rest[:1] == "^"):
        return None
    return _side(run)


def _side(text: str) -> _Side | None:
    """None where it is no expression of numbers."""
    tokens = _tokens(text.replace("$", "").replace("%", "").strip().rstrip(".,"))
    if not tokens:
        return None
    try:
        value, left = _sum(tokens)
    except (ValueError, ZeroDivisionError, IndexError):
        return None
    if left:
        return None
    numbers = [token for token in tokens if token[-1].isdigit()]
    is_bare = len(numbers) == 1
    decimals = len(numbers[0].partition(".")[2]) if is_bare else 0
    return _Side(value, Fraction(1, 10**decimals) if decimals else Fraction(0), is_bare)


def _tokens(text: str) -> list[str]:
    if len(text) > MAX_DIGITS * MAX_TOKENS:
        return []
    tokens: list[str] = []
    place = 0
    while place < len(text):
        match = TOKEN.match(text, place)
        if match is None or len(match.group(1)) > MAX_DIGITS or len(tokens) >= MAX_TOKENS:
            return []
        tokens.append(match.group(1))
        place = match.end()
    return tokens


def _sum(tokens: list[str]) -> tuple[Fraction, list[str]]:
    """Value of the sum at the beginning, and what is left."""
    value, tokens = _product(tokens)
    while tokens and tokens[0] in "+-":
        other, rest = _product(tokens[1:])
        value, tokens = (value + other if tokens[0] == "+" else value - other), rest
    return value, tokens


def _product(tokens: list[str]) -> tuple[Fraction, list[str]]:
    value, tokens = _factor(tokens)
    while tokens and tokens[0] in "*/":
        other, rest = _factor(tokens[1:])
        value, tokens = (value * other if tokens[0] == "*" else value / other), rest
    return value, tokens


def _factor(tokens: list[str]) -> tuple[Fraction, list[str]]:
    first, rest = tokens[0], tokens[1:]
    if first in "+-":
        value, rest = _factor(rest)
        return (value if first == "+" else -value), rest
    if first == "(":
        value, rest = _sum(rest)
        if rest[0] != ")":
            raise ValueError("a bracket is not closed")
        return value, rest[1:]
    if not first[-1].isdigit():
        raise ValueError(f"{first!r} is no number")
    return Fraction(first.replace(",", "")), rest
