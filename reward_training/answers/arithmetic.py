"""Checks the sums in a text: equations of numbers, computed in exact fractions. Nothing is evaluated as code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from reward_training.answers import markup
from reward_training.answers.number import as_fraction, num_decimals, unsigned
from reward_training.answers.plain_text import plain

MAX_NUMBER_LENGTH = 40
"""characters of one number; nobody writes down a sum of longer ones"""
MAX_TOKENS = 64
"""numbers, operators and brackets on one side of an equation"""

TOKEN = re.compile(rf"\s*({unsigned()}|[-+*/()])")
CHARACTERS_OF_SUMS = "-+*/().,0123456789$% \t\n"
BREAK = re.compile(r"[.,]\s|\n")
"""the border between a sum and the text beside it"""
X_BETWEEN_DIGITS = re.compile(r"(?<=\d) ?x ?(?=\d)")


def equations(text: str) -> list[bool]:
    """One verdict for each equation of numbers that has an operator, in the order of the text: True where it is right.

    A number with decimals is right to within half of its last place: 2 / 3 = 0.67. The time grows in proportion to the
    text's length.

    >>> equations("17 + 25 = 42, and half of it: 42 / 2 = 22")
    [True, False]
    >>> equations("x = 5, so the answer is 5")
    []
    """
    verdicts = []
    for before, after in pairwise(_with_ascii_operators(text).split("=")):
        left, right = _left_of(before), _right_of(after)
        if left is None or right is None or (left.is_bare and right.is_bare):
            continue  # no expression of numbers, or two bare numbers: no sum
        verdicts.append(abs(left.value - right.value) <= max(left.last_place, right.last_place) / 2)
    return verdicts


def _with_ascii_operators(text: str) -> str:
    """The text with one ASCII sign for each operation, without LaTeX's and Markdown's decoration."""
    text = markup.operators(plain(markup.without_bold(text)))
    text = X_BETWEEN_DIGITS.sub("*", markup.fractions_in_brackets(text))
    return markup.spaces(markup.thousands(markup.without_inline_delimiters(text)), gap="")


@dataclass(frozen=True)
class _Side:
    """One side of an equation."""

    value: Fraction
    last_place: Fraction
    """the size of its last decimal; 0 for whole numbers and for expressions"""
    is_bare: bool
    """whether it is one number alone"""


def _left_of(before: str) -> _Side | None:
    """The expression at the end of a text; None without one, or if it ends one with unknowns: x + 2 + 3."""
    rest = before.rstrip(CHARACTERS_OF_SUMS)
    whole = before[len(rest) :]
    run = BREAK.split(whole)[-1]
    if len(run) == len(whole) and (rest[-1:].isalnum() or rest[-1:] in tuple(")]}^_")):
        starts_apart = run[:1].isspace() and run.lstrip()[:1] not in tuple("+-*/")
        if not starts_apart:
            return None
    return _side(run)


def _right_of(after: str) -> _Side | None:
    """The expression at the beginning of a text; None without one, or if it begins one with unknowns: 5x."""
    rest = after.lstrip(CHARACTERS_OF_SUMS)
    whole = after[: len(after) - len(rest)]
    run = BREAK.split(whole)[0]
    if len(run) == len(whole) and run[-1:].isdigit() and (rest[:1].isalpha() or rest[:1] == "^"):
        return None
    return _side(run)


def _side(text: str) -> _Side | None:
    """The value of one side; None where it is no expression of numbers, or divides by zero."""
    tokens = _tokens(text.replace("$", "").replace("%", "").strip().rstrip(".,"))
    if not tokens:
        return None
    try:
        value, rest = _sum(tokens)
    except (ValueError, ZeroDivisionError, IndexError):
        return None
    if rest:
        return None
    numbers = [token for token in tokens if token[-1].isdigit()]
    is_bare = len(numbers) == 1
    decimals = num_decimals(numbers[0]) if is_bare else 0
    return _Side(value, Fraction(1, 10**decimals) if decimals else Fraction(0), is_bare)


def _tokens(text: str) -> list[str]:
    """Numbers, operators and brackets; none if the text has anything else, too many, or too long a number."""
    if len(text) > MAX_NUMBER_LENGTH * MAX_TOKENS:
        return []
    tokens: list[str] = []
    end = 0
    while end < len(text):
        match = TOKEN.match(text, end)
        if match is None or len(match.group(1)) > MAX_NUMBER_LENGTH or len(tokens) >= MAX_TOKENS:
            return []
        tokens.append(match.group(1))
        end = match.end()
    return tokens


def _sum(tokens: list[str]) -> tuple[Fraction, list[str]]:
    """The value of the sum at the beginning of the tokens, and the tokens after it. `_product` and `_factor` return the
    same.

    Raises:
        ValueError, IndexError: the tokens are no sum.
        ZeroDivisionError: a divisor is zero.
    """
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
    number = as_fraction(first)
    if number is None:
        raise ValueError(f"{first!r} is no number")
    return number, rest
