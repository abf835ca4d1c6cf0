"""Checkers, which compare an extracted answer with the gold answer.

They are pure functions that never evaluate text as code or import torch.
"""

from __future__ import annotations

import functools
import importlib
import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

from reward_training.answers import markup
from reward_training.answers.entries import decoded
from reward_training.answers.families import family_dataset, seed_generators
from reward_training.answers.finding.committed_number import only_number
from reward_training.answers.finding.final_answer import final_answer
from reward_training.answers.gold import gold_value
from reward_training.answers.number import NUMBER, as_decimal
from reward_training.answers.plain_text import plain, visible
from reward_training.answers.values.equality import are_units_equal, is_equal, is_rounded
from reward_training.answers.values.quantity import Quantity, in_words
from reward_training.answers.values.reading import read
from reward_training.answers.values.spelling import tidy
from reward_training.answers.values.value import Expression, Named, Value, Words

ROUNDING = 1e-6
"""the largest relative tolerance that only allows for rounded digits; whole numbers have to be equal under it"""

TAKES_BACK = re.compile(r"\b(?:not|wrong|incorrect|or|unless|if|false|no|never|neither|either)\b|n't\b", re.IGNORECASE)


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
    value = gold_value(gold)
    found, wanted = _number(_stated(answer, value)), _number(value)
    if found is None or wanted is None or not are_units_equal(found.unit, wanted.unit, question):
        return False
    if tolerance <= ROUNDING and wanted.value.denominator == 1:
        return found.value == wanted.value
    difference, limit = abs(found.value - wanted.value), Fraction(repr(tolerance)) * abs(wanted.value)
    if difference < limit or (difference == limit and tolerance > ROUNDING):
        return True
    return is_rounded(found.value, wanted.value) or is_rounded(wanted.value, found.value)


def _number(value: Value) -> Quantity | None:
    """The number that a value is, or that has a name: 5 in x = 5."""
    value = value.value if isinstance(value, Named) else value
    return value if isinstance(value, Quantity) else None


def _stated(answer: str, wanted: Value) -> Value:
    """The value of an answer; where a number is wanted, also the only one of a sentence, `She has 42 apples left.`"""
    value = read(answer)
    if isinstance(value, Words) and "\\boxed" in answer and len(re.findall(r"(?<!\\)\b[A-Za-z]{2,}", answer)) > 1:
        return read(final_answer(answer, "boxed") or answer)  # a whole response
    if isinstance(value, Words) and not value.has_formula and _number(wanted) is not None:
        return read(only_number(answer) or answer)
    return value


def _bare(text: str) -> str:
    """The text in ASCII's signs, without the marks of Markdown, LaTeX and quotation around it."""
    marks = markup.DECORATION + "$"
    bare = markup.without_maths_delimiters(markup.without_bold(plain(text)).strip().lstrip(", ").rstrip(".\u3002 "))
    return markup.spaces(markup.unwrapped(bare)).strip().strip(marks).rstrip(".").strip(marks)


def _words_of(text: str) -> str:
    """The words, numbers and signs of a text in lower case, with one space between words."""
    words = " ".join(re.findall(r"[\w.%$+<>=\u2264\u2265\u2260^/-]+", plain(text).casefold())).rstrip(".")
    return re.sub(r" ?([<>=\u2264\u2265\u2260^/]) ?", r"\1", words)


FOLDS: Sequence[Callable[[str], str]] = (
    str.strip,
    _bare,
    lambda text: _bare(text).casefold(),
    lambda text: _words_of(_bare(text)),
)
"""what may be left of two texts that are equal, from all of it to the words"""


def choice(answer: str, gold: str, choices: Mapping[str, str]) -> bool:
    """Whether the answer names the choice `gold`: by its letter, by its text, or by both.

    >>> choices = {"A": "Madrid", "B": "Rome"}
    >>> choice("(b)", "B", choices), choice("B) Rome", "B", choices), choice("rome", "B", choices), choice("B) Madrid", "B", choices)
    (True, True, True, False)
    """
    return chosen(answer, choices) == gold


def chosen(answer: str, choices: Mapping[str, str]) -> str | None:
    """The letter of the one choice that a short text names; None if it names none, or a letter with another's text."""
    is_letter = _bare(answer).upper() in choices  # a lone letter is a text only where no other choice is much like it
    return by_text(answer, choices, FOLDS[-1:] if is_letter else FOLDS) or by_letter(answer, choices)


def by_text(answer: str, choices: Mapping[str, str], folds: Sequence[Callable[[str], str]] = FOLDS) -> str | None:
    """The letter of the one choice whose text this is: of an equal text before one that is equal when folded.

    >>> by_text("$x^3$", {"A": "$x^2$", "B": "$x^3$"}), by_text("us", {"A": "US", "B": "us"}), by_text("Us", {"A": "US", "B": "us"})
    ('B', 'B', None)
    """
    for fold in folds:
        wanted = fold(answer)
        letters = [letter for letter, text in choices.items() if wanted and fold(text) == wanted]
        if len(letters) == 1:
            return letters[0]
    return None


def by_letter(answer: str, choices: Mapping[str, str]) -> str | None:
    """The letter that a short text gives, alone, with its choice's text, or with a remark; None if it gives none."""
    folded = {letter: _words_of(words) for letter, words in choices.items()}
    letters = "".join(re.escape(letter) for letter in choices)
    match = re.fullmatch(
        rf"[(\[]?(?:(?:option|choice|answer|letter)\s*)?[(\[]?([{letters}])[)\]]?(?:\s*[).:,\-\u2014]\s*|\s+|$)(.*)",
        _bare(answer),
        re.IGNORECASE | re.DOTALL,
    )
    if match is None:
        return None
    letter, rest = match.group(1).upper(), match.group(2).strip(" *")
    if match.group(0)[: match.start(2)].rstrip().endswith(",") and _names_nothing_else(rest, letters, folded):
        return letter
    rest = re.sub(r"^\((.*)\)$", r"\1", rest)
    named = _words_of(re.sub(r"\s*\([^()]*\)$", "", rest))
    return letter if not rest or folded[letter] in (_words_of(rest), named) else None


def _names_nothing_else(rest: str, letters: str, folded: Mapping[str, str]) -> bool:
    """Whether what follows a letter and a comma is only a remark: it names no letter, no choice, and takes nothing back."""
    words = _words_of(rest)
    names_choice = any(text and re.search(rf"(?<!\w){re.escape(text)}(?!\w)", words) for text in folded.values())
    return not (names_choice or re.search(rf"\b[{letters}]\b(?!')", rest) or TAKES_BACK.search(rest))


def normalised(text: str) -> str:
    """The text with compatibility characters and case folded, single spaces, and no HTML, Markdown or stops around."""
    folded = unicodedata.normalize("NFKC", markup.without_formatting_tags(visible(text))).casefold()
    one_space = " ".join(re.sub(r"(?<=\d)\s*([,:])\s+(?=\d)", r"\1", folded).split())
    return one_space.lstrip(markup.EMPHASIS + " ").rstrip(markup.EMPHASIS + ". ")


def as_number(text: str) -> Decimal | None:
    """The value of a text that is one number; None for other texts, and for numbers too large to be written out."""
    stripped = normalised(text)
    return as_decimal(stripped) if NUMBER.fullmatch(stripped) else None


def reasoning_gym(answer: str, family: str, entry: dict[str, Any], options: dict[str, Any] | None = None) -> float:
    """The score, usually in [0, 1], by the scorer of the family with these options; the entry is read by `decoded`."""
    function = _score_function(family, json.dumps(options or {}))
    seed_generators(0)
    return float(function(answer, decoded(entry)))


@functools.cache
def _score_function(family: str, options: str) -> Callable[[str, dict[str, Any]], float]:
    if options != "{}":
        scorer: Callable[[str, dict[str, Any]], float] = family_dataset(
            family, json.loads(options), seed=0
        ).score_answer
        return scorer
    scorer = importlib.import_module("reasoning_gym").get_score_answer_fn(family)
    return scorer


def regex(answer: str, pattern: str) -> float:
    """1.0 where the pattern matches the whole answer, else 0.0."""
    return float(re.fullmatch(pattern, answer) is not None)


def math_equal(answer: str, gold: str, question: str = "") -> float:
    """1.0 where the answer is equal to the gold answer as mathematics, by their types, else 0.0.

    The question says which unit is asked for, and whether the order of several values matters.
    """
    wanted = gold_value(gold)
    if answer.strip() == gold.strip():
        return 1.0
    return float(is_equal(_stated(answer, wanted), wanted, question) and not _repeats(answer, gold, question))


def _repeats(answer: str, gold: str, question: str) -> bool:
    """Whether an answer is the formula that the question asks to work on."""
    found = read(answer)
    found = found.value if isinstance(found, Named) else found
    if not isinstance(found, Expression):
        return False
    asked, given, right = (re.sub(r"[\s$]", "", tidy(text)) for text in (question, answer, gold))
    is_formula = found.tree.operation != "symbol" and given != right
    return is_formula and ASKS_TO_WORK.search(question) is not None and given in asked


ASKS_TO_WORK = re.compile(
    r"\b(?:expand|simplify|factor(?:ise|ize)?|evaluate|compute|calculate|rationali[sz]e|reduce|find|what is)\b", re.I
)
