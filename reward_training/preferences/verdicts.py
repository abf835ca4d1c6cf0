"""The responses in a row of a preference data set, and what the row says about which is better."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from configs.disk.rows.columns import from_json, shortened
from configs.errors import ConfigError, UnreadableRow
from configs.schema.preferences import Better, FileLabeler, value_key
from reward_training.preferences.cells import LeftOut, cell

MAX_NUMBER = sys.float_info.max / 2
"""the largest score of which any two have a difference that is a number"""


class Judged(NamedTuple):
    """A response as it stands in the row, and its value: higher is better, None is unknown."""

    column: str
    response: Any
    value: float | None


def judged(row: dict[str, Any], labeler: FileLabeler, place: str) -> list[Judged]:
    """The row's responses with their values.

    Raises:
        LeftOut: the row has no verdict, or sees no difference.
        UnreadableRow: a score or rank is infinite.
        ConfigError: a column is missing, or what stands in it has no meaning that the configuration gives.
    """
    if labeler.chosen is not None and labeler.rejected is not None:
        better = _each(cell(row, labeler.chosen, "labeler.chosen", place))
        worse = _each(cell(row, labeler.rejected, "labeler.rejected", place))
        return [
            *(Judged(labeler.chosen, response, 1.0) for response in better),
            *(Judged(labeler.rejected, response, 0.0) for response in worse),
        ]
    responses = _responses(row, labeler, place)
    values: Sequence[float | None]
    if labeler.better is not None:
        values = _by_verdict(row, labeler.better, len(responses), place)
    else:
        values = _by_number(row, labeler, len(responses), place)
    return [Judged(*response, value) for response, value in zip(responses, values, strict=True)]


def _each(value: Any) -> list[Any]:
    """The responses of a column that may hold one (a text, a message, a conversation) or a list of them."""
    items = value if isinstance(value, list) else []
    is_several = any(item is not None for item in items) and all(isinstance(item, str | list | None) for item in items)
    return items if is_several else [value]


def _responses(row: dict[str, Any], labeler: FileLabeler, place: str) -> list[tuple[str, Any]]:
    """(column, what stands there) of each response."""
    if labeler.response is not None:
        return [(labeler.response, cell(row, labeler.response, "labeler.response", place))]
    assert labeler.responses is not None, "the schema wants one of the three"
    if isinstance(labeler.responses, list):
        return [(name, cell(row, name, "labeler.responses", place)) for name in labeler.responses]
    found = _list_in(row, labeler.responses, "labeler.responses", place, without="null")
    return [(labeler.responses, response) for response in found]


def _list_in(row: dict[str, Any], path: str, field_name: str, place: str, *, without: str) -> list[Any]:
    """The list in a column; `without` is why a row that has none is left out."""
    value = cell(row, path, field_name, place)
    if is_blank(value):
        raise LeftOut(without)
    value = from_json(value) if isinstance(value, str) else value
    if not isinstance(value, list):
        raise ConfigError(
            f"{place}: {path!r} holds {shortened(value)}, no list; name a column with a list in {field_name}, a list of "
            "columns, or `response` where a row holds one response"
        )
    return value


# ---- which response is better ---------------------------------------------------------------------------------------


def _by_verdict(row: dict[str, Any], better: Better, num_responses: int, place: str) -> list[float]:
    """1 for the best response and 0 for the others; with `negative` (the signed preference for the first, 0)."""
    verdict = cell(row, better.column, "labeler.better.column", place)
    if is_blank(verdict):
        raise LeftOut("unlabelled")
    if num_responses != better.num_responses:
        raise ConfigError(
            f"{place}: {num_responses} responses, and labeler.better tells {better.num_responses} apart; give a value for each in "
            "labeler.better.values"
        )
    if better.negative:
        number = _number(verdict, {}, better.column, "name a column with numbers, or give better.values", place)
        if number is None:
            raise LeftOut("unlabelled")
        return [-number if better.negative == "first" else number, 0.0]
    return _one_best(verdict, better, place)


def _one_best(verdict: Any, better: Better, place: str) -> list[float]:
    key = None if isinstance(verdict, list | dict) else value_key(verdict)
    if key in [value_key(value) for value in better.tie]:
        raise LeftOut("tie")
    values = [float(key in map(value_key, meaning)) for meaning in better.of_responses]
    if not any(values):
        raise ConfigError(
            f"{place}: {better.column!r} is {shortened(verdict)}, which labeler.better does not name; add it to the "
            "`values` of a response, or to `tie` to leave such rows out"
        )
    return values


def _by_number(row: dict[str, Any], labeler: FileLabeler, num_responses: int, place: str) -> list[float | None]:
    """The scores, or the negative ranks."""
    name = "score" if labeler.score is not None else "rank"
    column, field_name = labeler.score or labeler.rank, f"labeler.{name}"
    assert column is not None, "the schema wants one of them"
    if isinstance(column, list):
        cells = [cell(row, one, field_name, place) for one in column]
    elif labeler.response is not None:
        cells = [cell(row, column, field_name, place)]
    else:
        cells = _list_in(row, column, field_name, place, without="unlabelled")
    if len(cells) != num_responses:
        raise ConfigError(
            f"{place}: {num_responses} responses and {len(cells)} values of {column!r}; {field_name} needs one for each"
        )
    remedy = "name a column with numbers" + (", or say in labeler.score_values what it stands for" * (name == "score"))
    words = {value_key(word): number for word, number in labeler.score_values.items()}
    numbers = [_number(value, words, str(column), remedy, place) for value in cells]
    return numbers if name == "score" else [None if number is None else -number for number in numbers]


def is_blank(value: Any) -> bool:
    """Whether nothing stands there; a table without a value has an empty text."""
    return value is None or (isinstance(value, str) and not value.strip())


def _number(value: Any, words: dict[Any, float | None], column: str, remedy: str, place: str) -> float | None:
    if is_blank(value):
        return None
    key = None if isinstance(value, list | dict) else value_key(value)
    if key in words:
        return words[key]
    if not isinstance(key, bool | int | float):
        raise ConfigError(f"{place}: {column!r} is {shortened(value)}, no number; {remedy}")
    if key != key:  # NaN
        return None
    if abs(key) > MAX_NUMBER:
        raise UnreadableRow(f"{place}: {column!r} is {shortened(value)}, which is too large to compare; mend the row")
    return float(key)
