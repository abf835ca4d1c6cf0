"""Checkers, which compare an extracted answer with the gold answer.

They are pure functions that never evaluate text as code or import torch.
"""

from __future__ import annotations

import functools
import importlib
import re
import unicodedata
from collections.abc import Callable, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

from reward_training.answers import markup
from reward_training.answers.number import NUMBER, as_decimal
from reward_training.answers.plain_text import plain, visible
from reward_training.answers.quantity import in_words, quantity
from reward_training.answers.units import is_another_unit

ROUNDING = 1e-6
"""the largest relative tolerance that only allows for rounded digits; whole numbers have to be equal under it"""

OR = re.compile(rf"\s*(?:{markup.WRAPPER}\{{\s*or\s*\}}|\bor\b)\s*")
OR_AND_COMMA = re.compile(rf"\s*(?:{markup.WRAPPER}\{{\s*(?:or|and)\s*\}}|\bor\b|\band\b|,)\s*")


def exact(answer: str, gold: str) -> bool:
    """Whether two answers are equal: as numbers where both are numbers, otherwise as normalised texts.

    >>> exact("1,000.0", "1000"), exact("Paris.", "paris"), exact("5", "6")
    (True, True, False)
    """
    left, right = as_number(answer), as_number(gold)
    if left is not None and right is not None:
        return left == right
    if right is not None and (words := in_words(normalised(answer))) is not None:
        return not words.unit and words.value == Fraction(right)
    return normalised(answer) == normalised(gold)


def numeric(answer: str, gold: str, tolerance: float = ROUNDING, question: str = "") -> bool:
    """Whether two answers are numbers, in any notation, that differ by no more than a relative tolerance.

    The unit must not differ from the gold answer's, or from the one that the question asks for. Up to a tolerance
    of ROUNDING, whole numbers have to be equal.

    >>> numeric("$1,250.50", "1250.5"), numeric("3/4", "0.75"), numeric("15 m", "15 cm"), numeric("4 or 5", "4")
    (True, True, False, False)
    >>> numeric("10000000001", "10000000000"), numeric("10000000001", "10000000000", tolerance=0.01)
    (False, True)
    """
    found, wanted = quantity(answer), quantity(gold)
    if found is None or wanted is None or (found.unit and wanted.unit and found.unit != wanted.unit):
        return False
    if not wanted.unit and is_another_unit(found.unit, question):
        return False
    if tolerance <= ROUNDING and found.value.denominator == wanted.value.denominator == 1:
        return found.value == wanted.value
    return abs(found.value - wanted.value) <= Fraction(tolerance) * abs(wanted.value)


def choice(answer: str, gold: str, choices: Mapping[str, str]) -> bool:
    """Whether the answer names the choice `gold`: by its letter, by its text, or by both.

    >>> choices = {"A": "Madrid", "B": "Rome"}
    >>> choice("(b)", "B", choices), choice("B) Rome", "B", choices), choice("rome", "B", choices), choice("B) Madrid", "B", choices)
    (True, True, True, False)
    """
    return chosen(answer, choices) == gold


def chosen(answer: str, choices: Mapping[str, str]) -> str | None:
    """The letter of the one choice that a short text names; None if it names none, or a letter with another's text."""
    marks = markup.DECORATION + "$"
    text = markup.spaces(markup.unwrapped(plain(answer))).strip().strip(marks).rstrip(".").strip(marks)
    folded = {letter: _words_of(words) for letter, words in choices.items()}
    by_text = [letter for letter, words in folded.items() if words and _words_of(text) == words]
    if len(by_text) == 1:
        return by_text[0]
    letters = "".join(re.escape(letter) for letter in choices)
    match = re.fullmatch(
        rf"(?:(?:option|choice|answer|letter)\s*)?[(\[]?([{letters}])[)\]]?(?:\s*[).:,\-\u2014]\s*|\s+|$)(.*)",
        text,
        re.IGNORECASE | re.DOTALL,
    )
    if match is None:
        return None
    letter, rest = match.group(1).upper(), match.group(2).strip(" *")
    rest = re.sub(r"^\((.*)\)$", r"\1", rest)
    named = _words_of(re.sub(r"\s*\([^()]*\)$", "", rest))
    return letter if not rest or folded[letter] in (_words_of(rest), named) else None


def _words_of(text: str) -> str:
    """The words and numbers of a text in lower case, with one space between them."""
    return " ".join(re.findall(r"[\w.%$+-]+", plain(text).casefold())).rstrip(".")


def normalised(text: str) -> str:
    """The text with compatibility characters and case folded, single spaces, and no HTML, Markdown or stops around."""
    folded = unicodedata.normalize("NFKC", markup.without_formatting_tags(visible(text))).casefold()
    one_space = " ".join(re.sub(r"(?<=\d)\s*([,:])\s+(?=\d)", r"\1", folded).split())
    return one_space.lstrip(markup.EMPHASIS + " ").rstrip(markup.EMPHASIS + ". ")


def as_number(text: str) -> Decimal | None:
    """The value of a text that is one number; None for other texts, and for numbers too large to be written out."""
    stripped = normalised(text)
    return as_decimal(stripped) if NUMBER.fullmatch(stripped) else None


def reasoning_gym(answer: str, family: str, entry: dict[str, Any]) -> float:
    """The family's own score, usually in [0, 1]."""
    return float(_score_function(family)(answer, entry))


@functools.cache
def _score_function(family: str) -> Callable[[str, dict[str, Any]], float]:
    function: Callable[[str, dict[str, Any]], float] = importlib.import_module("reasoning_gym").get_score_answer_fn(
        family
    )
    return function


def regex(answer: str, pattern: str) -> float:
    """1.0 where the pattern matches the whole answer, else 0.0."""
    return float(re.fullmatch(pattern, answer) is not None)


def math_verify(answer: str, gold: str) -> float:
    """1.0 where math-verify finds the answer equal to the gold answer as mathematics, else 0.0.

    The library looks for the answer in prose and in texts with marked formulas; any other text is one formula.
    """
    library = importlib.import_module("math_verify")
    readings = [_formula(gold), _formula(answer)]
    if None in readings:
        return 0.0
    golds, answers = (list(library.parse(text, parsing_timeout=None)) for text in readings)
    return float(library.verify(golds, answers, timeout_seconds=None))


def _formula(text: str) -> str | None:
    """The text that math-verify is given; None for a number too large to be written out.

    Numbers are written without exponents, because the library reads 5e999 as 5, and $5e3$ as the product of 5, e and 3.
    """
    if NUMBER.fullmatch(normalised(text)):
        number = as_number(text)
        return None if number is None else f"${number:f}$"
    text = _solutions_as_set(text)
    is_prose = re.search(r"\s", text) and re.search(r"(?<![\\A-Za-z])[A-Za-z]{2,}", text)
    return text if markup.has_marked_maths(text) or is_prose else f"${text}$"


def _solutions_as_set(text: str) -> str:
    """The set of solutions in `x = 1 or x = 2` or `1 or 2`, as LaTeX; other texts come back as they are."""
    alternatives = OR.split(text)
    if len(alternatives) > 1 and all(quantity(part) is not None for part in alternatives):
        return "$\\{" + ", ".join(part.strip("$ ") for part in alternatives) + "\\}$"
    parts = OR_AND_COMMA.split(text)
    solutions = [re.fullmatch(r"([a-z])\s*=\s*(.+)", part.strip()) for part in parts]
    if len(parts) < 2 or not all(solutions) or len({match[1] for match in solutions if match}) > 1:
        return text
    return "$\\{" + ", ".join(match[2] for match in solutions if match) + "\\}$"
