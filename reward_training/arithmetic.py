"""Whether the sums that stand in a text are right: equations of numbers, by exact fractions; nothing is evaluated as code."""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import pairwise

MAX_DIGITS = 40
"""of one number; longer ones are no sum that somebody wrote down"""
MAX_TOKENS = 64
"""of one side"""

SIGNS = str.maketrans({"×": "*", "·": "*", "⋅": "*", "÷": "/", "\u2212": "-", "–": "-"})
NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
TOKEN = re.compile(rf"\s*({NUMBER}|[-+*/()])")
SIDE = r"[-+*/().,\d\s$%]*\d[-+*/().,\d\s$%]*"
EQUATION = re.compile(rf"(?<![\w^]){SIDE}(?:=\s*{SIDE})+")


def equations(text: str) -> list[bool]:
    """For each equation of numbers in the text with at least one operator, whether it is right.

    A number with decimals is right to within half of its last place: 2 / 3 = 0.67.

    >>> equations("17 + 25 = 42, and half of it: 42 / 2 = 22")
    [True, False]
    >>> equations("x = 5, so the answer is 5")
    []
    """
    found, text = [], _plain(text)
    for match in EQUATION.finditer(text):
        sides = [_side(part) for part in match.group().split("=")]
        if _goes_on_before(text, match):
            sides[0] = None
        if _goes_on_after(text, match):
            sides[-1] = None
        for (left, left_place, left_plain), (right, right_place, right_plain) in _neighbours(sides):
            if left_plain and right_plain:
                continue  # two bare numbers: no sum
            found.append(abs(left - right) <= max(left_place, right_place) / 2)
    return found


def _plain(text: str) -> str:
    """One sign for each operation; LaTeX's and Markdown's decoration left out."""
    text = text.replace("\\times", "*").replace("\\cdot", "*").replace("\\div", "/").replace("**", "")
    text = re.sub(r"\\frac\{([^{}]*)\}\{([^{}]*)\}", r"(\1)/(\2)", text)
    text = re.sub(r"(?<=\d)\s*x\s*(?=\d)", "*", text)
    return text.translate(SIGNS).replace("\\(", "").replace("\\)", "").replace("\\,", "")


Side = tuple[Fraction, Fraction, bool]
"""value, the size of its last place (0 where it is exact), whether it is a bare number"""


def _neighbours(sides: list[Side | None]) -> list[tuple[Side, Side]]:
    return [(a, b) for a, b in pairwise(sides) if a is not None and b is not None]


def _goes_on_before(text: str, match: re.Match[str]) -> bool:
    """Whether the first side is only the end of a longer one: x + 2 + 3."""
    before = text[: match.start()].rstrip()
    return match.group().lstrip()[0] in "+-*/" and bool(before) and (before[-1].isalnum() or before[-1] in ")]}")


def _goes_on_after(text: str, match: re.Match[str]) -> bool:
    """Whether the last side is only the beginning of a longer one: 5x."""
    return text[match.end() : match.end() + 1].isalpha() and match.group()[-1].isdigit()


def _side(text: str) -> Side | None:
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
    is_plain = len(numbers) == 1
    decimals = len(numbers[0].partition(".")[2]) if is_plain else 0
    return value, Fraction(1, 10**decimals) if decimals else Fraction(0), is_plain


def _tokens(text: str) -> list[str]:
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
