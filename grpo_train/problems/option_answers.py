"""Finds which options the gold answers of a source name, by the reading that fits the whole column of answers.

An answer "1" may be a label, the text of an option, or its number: one row does not tell, the others do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from configs.disk.rows.columns import unpacked
from configs.errors import ConfigError
from grpo_train.problems.options import LABELS, TEXTS, Options, first_of, is_missing
from reward_training.answers.checkers import by_letter, by_text

MARKS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}
NUMBER = re.compile(r"-?\d+(?:\.0)?")
MAX_DIGITS = 10
"""of the number of an option"""

Reading = Callable[[Any, Options], str | None]
"""the letter of the option that an answer names in one way; None if it names none in this way"""


@dataclass(frozen=True)
class Answered:
    """The answer column of one row, and the row's options."""

    answer: Any
    options: Options
    place: str


def letters_of_column(
    column: Sequence[Answered], first: int, *, is_counted: bool = False, are_texts: bool = False
) -> list[list[str]]:
    """The letters of the right options of each row; empty where the answer names none of them.

    An answer is a label, a letter of any case, the text of an option, or its number counted from `first`; or a list of
    these, or of a 1 for each right option and a 0 for each other one. The reading that fits the most rows is that of the
    column. Where as many fit, labels of the data come first, then numbers if the data holds them as numbers or the
    configuration counts them (`is_counted`), then texts and letters.

    With `are_texts` the answers are among the options, so that they are texts whatever they look like.

    Raises:
        ConfigError: the numbers fit when counted the other way, or answers may be texts of options as well as numbers or
            letters.
    """
    if are_texts:
        return [_letters(items_of(row), row.options, [_text]) or [] for row in column]
    number, other = _numbered_from(first), _numbered_from(1 - first)
    marked = [_marked(row) for row in column]
    rows = [(items_of(row), row.options) for row in column]
    numbers = [item for items, _ in rows for item in items if _is_number(item)]
    are_numbers = is_counted or not any(isinstance(item, str) for item in numbers)
    readings = [_label, number, _text, _letter] if are_numbers else [_label, _text, _letter, number]
    scores = {reading: sum(_letters(*row, [reading]) is not None for row in rows) for reading in [*readings, other]}
    best = max(readings, key=scores.__getitem__)
    num_marked = sum(letters is not None for letters in marked)
    if num_marked and num_marked >= max(scores.values()):
        return [letters if letters is not None else [] for letters in marked]
    if scores[other] > scores[best]:
        _refuse_count(column, rows, number, first)
    for rival in (number, _letter):
        if best is _text and scores[rival] == scores[best]:
            _refuse_doubt(column, rows, rival)
    rest = [reading for reading in readings if reading is not best]
    return [_read(items, options, best, rest, is_plain=best not in (number, _text)) for items, options in rows]


def items_of(row: Answered) -> list[Any]:
    """The answers of a row, of which any is right: of a list, of lists in it, and of a text that holds a list."""
    answer = row.answer
    if isinstance(answer, str) and answer.strip() not in row.options.texts.values():
        answer = parsed if isinstance(parsed := unpacked(answer), list | tuple) else answer
    return list(_flat(answer))


def _flat(answer: Any) -> list[Any]:
    if isinstance(answer, list | tuple):
        return [item for part in answer for item in _flat(part)]
    if isinstance(answer, dict):  # an option as a mapping
        answer = first_of(answer, LABELS) if first_of(answer, LABELS) is not None else first_of(answer, TEXTS)
    return [] if is_missing(answer) else [answer]


def _letters(items: Sequence[Any], options: Options, readings: Sequence[Reading]) -> list[str] | None:
    """The letters of all the items, each by the first reading that fits it; None if none fits one, or there are none."""
    found = [next((letter for read in readings if (letter := read(item, options))), None) for item in items]
    letters = [letter for letter in found if letter is not None]
    return list(dict.fromkeys(letters)) if letters and len(letters) == len(found) else None


def _read(items: list[Any], options: Options, best: Reading, rest: list[Reading], *, is_plain: bool) -> list[str]:
    """The letters that are found by the column's reading, or by another where the two cannot be taken for each other."""
    found = [_letters([item], options, [best, *rest] if is_plain or not _is_number(item) else [best]) for item in items]
    return list(dict.fromkeys(letter for letters in found for letter in letters or []))


# ---- readings -------------------------------------------------------------------------------------------------------


def _marked(row: Answered) -> list[str] | None:
    """The letters that have a 1, of a list that has a 1 or a 0 for each option; None if the answer is no such list."""
    answer = unpacked(row.answer)
    marks = [MARKS.get(str(item).strip().lower()) for item in answer] if isinstance(answer, list | tuple) else []
    if len(marks) != len(row.options.order) or None in marks:
        return None
    return [
        letter for letter, mark in zip(row.options.order, marks, strict=True) if mark and letter in row.options.texts
    ]


def _label(answer: Any, options: Options) -> str | None:
    """By the labels that the data gives the options."""
    if not options.labels or (text := _written(answer)) is None:
        return None
    return options.labels.get(text) or by_letter(text, options.texts)


def _letter(answer: Any, options: Options) -> str | None:
    return None if (text := _written(answer)) is None else by_letter(text, options.texts)


def _text(answer: Any, options: Options) -> str | None:
    texts = {str(answer).strip(), _written(answer)} - {None}
    return (
        None if isinstance(answer, bool) else next(filter(None, (by_text(str(t), options.texts) for t in texts)), None)
    )


def _numbered_from(first: int) -> Reading:
    def numbered(answer: Any, options: Options) -> str | None:
        place = int(float(answer)) - first if _is_number(answer) and len(str(answer)) < MAX_DIGITS else -1
        letter = options.order[place] if 0 <= place < len(options.order) else None
        return letter if letter in options.texts else None

    return numbered


def _written(answer: Any) -> str | None:
    """The answer as a text, a whole number without a point; None if it is neither a text nor a number."""
    if isinstance(answer, bool) or not isinstance(answer, str | int | float):
        return None
    return str(int(answer)) if isinstance(answer, float) and answer.is_integer() else str(answer).strip()


def _is_number(answer: Any) -> bool:
    return (text := _written(answer)) is not None and NUMBER.fullmatch(text) is not None


# ---- what cannot be told --------------------------------------------------------------------------------------------


def _refuse_count(
    column: Sequence[Answered], rows: list[tuple[list[Any], Options]], number: Reading, first: int
) -> None:
    row, items = next(
        (row, items)
        for row, (items, options) in zip(column, rows, strict=True)
        if any(map(_is_number, items)) and _letters(items, options, [number]) is None
    )
    raise ConfigError(
        f"{row.place}: the answer {', '.join(map(str, items))} is no option of {len(row.options.order)} counted from {first}; "
        f"set columns.first_option: {1 - first}, or mend the row"
    )


def _refuse_doubt(column: Sequence[Answered], rows: list[tuple[list[Any], Options]], rival: Reading) -> None:
    """Refuse a column whose answers fit as well by number or letter as by text, where it makes a difference."""
    what, remedy = (
        ("letter", 'give the options letters as labels ({"A": ..., "B": ...}) if it is a letter, else write numbers')
        if rival is _letter
        else (
            "number",
            "set columns.first_option to the number of the first option (0 or 1) if it is a number, else write letters",
        )
    )
    for row, (items, options) in zip(column, rows, strict=True):
        by_rival, as_texts = (_letters(items, options, [reading]) for reading in (rival, _text))
        if by_rival is not None and as_texts is not None and by_rival != as_texts:
            raise ConfigError(
                f"{row.place}: the answer {', '.join(map(str, items))} may be the {what} of an option or its text, and the "
                f"other rows do not tell; {remedy} into the answer column"
            )
