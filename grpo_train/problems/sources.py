"""Reads questions and answers from reasoning-gym families, JSONL files and data sets."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from configs.disk.rows.columns import Row, column, shortened
from configs.disk.rows.messages import as_messages
from configs.disk.rows.reading import DEFAULT_SPLIT, read_rows
from configs.errors import ConfigError
from configs.records import Message
from configs.schema.problems import Columns, DatasetSource, JsonlSource, ReasoningGymSource, Source
from grpo_train.problems.families import read_family
from grpo_train.problems.raw_problem import RawProblem, SourceRows, as_difficulty
from reward_training.answers.gold import gold_in_solution

MAX_UNMATCHED_SHARE = 0.5
"""largest share of rows that the answer pattern may miss; with more, the source is misconfigured"""


def read_source(source: Source) -> SourceRows:
    """All problems of a source, in the source's order.

    Raises:
        ConfigError: the source is missing, or does not contain what the configuration says.
    """
    if isinstance(source, ReasoningGymSource):
        return SourceRows(read_family(source))
    if isinstance(source, JsonlSource):
        rows = read_rows(source.path, None, DEFAULT_SPLIT, None, "problems.sources.path")
        return _from_rows(source, source.path, rows)
    rows = read_rows(source.path, source.name, source.dataset_split, source.revision, "problems.sources.path")
    return _from_rows(source, source.path, rows)


# ---- rows of files and data sets ------------------------------------------------------------------------------------


def _from_rows(source: JsonlSource | DatasetSource, name: str, rows: Iterable[Row]) -> SourceRows:
    taken = _taker(source, name)
    problems, num_unmatched = [], 0
    for location, row in rows:
        question = _question(column(row, source.columns.question, "columns.question", location), location)
        answer = _answer(column(row, source.columns.answer, "columns.answer", location), taken, location)
        if answer is None:
            num_unmatched += 1
            continue
        meta, difficulty = _other_columns(row, source.columns), _column_difficulty(row, source.columns, location)
        problems.append(RawProblem(question, answer, name, meta=meta, difficulty=difficulty, split=source.split))
    if num_unmatched > MAX_UNMATCHED_SHARE * (len(problems) + num_unmatched):
        asked = (
            f"answer_place={source.answer_place}"
            if source.answer_place
            else f"answer_pattern={source.answer_pattern!r}"
        )
        raise ConfigError(
            f"{name}: {asked} is missing in {num_unmatched} of {len(problems) + num_unmatched} answers; "
            f"mend the {'place' if source.answer_place else 'pattern'} or columns.answer"
        )
    if not problems:
        raise ConfigError(f"{name} is empty; it needs a row a problem with a question and an answer")
    return SourceRows(problems, num_unmatched)


Taker = Callable[[str], str | None]
"""takes the gold answer out of the text of its column; None where it is not there"""


def _taker(source: JsonlSource | DatasetSource, name: str) -> Taker:
    """What the configuration says about how the gold answer is found; by default it is the whole text."""
    if source.answer_place is not None:
        return partial(gold_in_solution, place=source.answer_place)
    if source.answer_pattern is None:
        return str
    pattern = _compiled(source.answer_pattern, name)

    def captured(text: str) -> str | None:
        match = pattern.search(text)
        return match[1].strip() if match and match[1] else None

    return captured


def _compiled(pattern: str, name: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"{name}: answer_pattern={pattern!r} is no regular expression: {error}") from error
    if compiled.groups != 1:
        raise ConfigError(
            f"{name}: answer_pattern={pattern!r} has {compiled.groups} groups; put one (...) around the answer"
        )
    return compiled


def _question(value: Any, location: str) -> str | list[Message]:
    if isinstance(value, str) and value.strip():
        return value
    if (messages := as_messages(value, location)) is not None:
        return messages
    raise ConfigError(
        f"{location}: the question is {shortened(value)}; it must be a text or a list of chat messages "
        "with role and content"
    )


def _answer(value: Any, taken: Taker, location: str) -> str | None:
    """The gold answer as text; None where it is not found."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ConfigError(f"{location}: the answer is {shortened(value)}; it must be a text or a number")
    text = str(value).strip()
    if not text and taken is str:
        raise ConfigError(f"{location}: the answer is empty; give the gold answer, or leave the row out")
    return taken(text)


def _column_difficulty(row: dict[str, Any], columns: Columns, location: str) -> float | None:
    """The row's difficulty in [0, 1].

    Without a column named in the configuration it is read from `difficulty`, and None where that holds no such number.

    Raises:
        ConfigError: the column that the configuration names holds no such number.
    """
    if columns.difficulty is None:
        return as_difficulty(row.get("difficulty"))
    value = column(row, columns.difficulty, "columns.difficulty", location)
    if (difficulty := as_difficulty(value)) is None:
        raise ConfigError(
            f"{location}: the difficulty is {shortened(value)}; scale it to a number from 0 (easy) to 1 (hard)"
        )
    return difficulty


def _other_columns(row: dict[str, Any], columns: Columns) -> dict[str, Any]:
    """The row's other columns, for scorers; values that JSON cannot hold (images, dates) are left out."""
    others = {key: value for key, value in row.items() if key not in (columns.question, columns.answer)}
    return {key: value for key, value in others.items() if _is_json(value)}


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True
