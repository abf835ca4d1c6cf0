"""Makes problems of the rows of files and data sets."""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from decimal import Decimal
from functools import partial
from string import ascii_uppercase
from typing import Any, Literal

from configs.disk.rows.columns import MISSING, Row, column, lookup, shortened
from configs.disk.rows.lines import within_limit
from configs.errors import ConfigError, UnreadableRow
from configs.records import Message
from configs.schema.problems import Columns, DatasetSource, DifficultyColumn, FileSource
from grpo_train.problems.difficulty import difficulties
from grpo_train.problems.left_out import MAX_SHARE
from grpo_train.problems.option_answers import Answered, letters_of_column
from grpo_train.problems.options import Options, read_options, shuffled, under_question
from grpo_train.problems.questions import inside, is_empty, question_of, shown_answer
from grpo_train.problems.raw_problem import RawProblem, SourceRows
from reward_training.answers.gold import gold_in_solution
from reward_training.answers.number import MAX_DIGITS, MAX_EXPONENT, NUMBER, as_fraction
from reward_training.rewards.columns import NO_COLUMNS, ColumnsRead

NOT_A_NUMBER = ("nan", "NaN", "-nan", "NAN", "<NA>", "NaT")
"""how libraries write that a number is missing"""
CHOICES = "choices"
"""name under which a problem keeps its options"""
RowSource = FileSource | DatasetSource


NEARLY_ALL = 0.9
"""share of the answers at the ends of a source's questions that are the gold ones from which on they give it away; where more
of them are other answers (is this answer right?), they are part of what is asked"""

LeftOut = Literal["empty", "unreadable", "unmatched"]
"""why a row is left out: it has no question or no answer; what it holds is no question or answer; no answer was found in the
place or form that is asked for"""
Taker = Callable[[str], str | None]
"""takes the gold answer out of the text of its column; None where it is not there"""


def problems_of_rows(source: RowSource, name: str, rows: Iterable[Row], read: ColumnsRead = NO_COLUMNS) -> SourceRows:
    """The problems of a source's rows, with those columns that rewards read.

    Raises:
        ConfigError: a row is not what the configuration says, or too many have no question or answer.
    """
    taken = _taker(source, name)
    problems: list[RawProblem] = []
    levels: list[tuple[str, Any]] = []
    left_out: dict[str, list[str]] = {"empty": [], "unreadable": [], "unmatched": []}
    shown: dict[str, list[str]] = {"gold": [], "other": []}
    answered: dict[int, Answered] = {}
    for location, row in rows:
        try:
            found = _problem(row, source, name, read, taken, location)
        except UnreadableRow as error:
            left_out["unreadable"].append(str(error))
            continue
        if isinstance(found, str):
            left_out[found].append(location)
            continue
        problem, its_answer, ending = found
        if its_answer is not None:
            answered[len(problems)] = its_answer
        if ending is not None:
            shown[ending].append(location)
        problems.append(problem)
        levels.append((location, _level(row, source.columns.difficulty, location)))
    golds = _letters(answered, source.columns)
    left_out["unmatched"] += [answered[i].place for i, letters in golds.items() if not letters]
    kept = [i for i in range(len(problems)) if i not in golds or golds[i]]
    problems = [replace(problems[i], **_answers(golds[i])) if i in golds else problems[i] for i in kept]
    levels = [levels[i] for i in kept]
    _refuse_many(source, name, len(problems), left_out)
    _refuse_leaks(name, len(problems), shown)
    leaking = shown["other" if source.columns.answer is None else "gold"]
    rated = zip(problems, difficulties(levels, source.columns.difficulty), strict=True)
    problems = [replace(problem, difficulty=difficulty) for problem, difficulty in rated]
    return SourceRows(
        problems,
        num_empty=len(left_out["empty"]),
        num_unreadable=len(left_out["unreadable"]),
        num_unmatched=len(left_out["unmatched"]),
        num_leaking=len(leaking),
        examples={reason: places[0] for reason, places in (left_out | {"leaking": leaking}).items() if places},
    )


def _problem(
    row: dict[str, Any], source: RowSource, name: str, read: ColumnsRead, taken: Taker | None, location: str
) -> tuple[RawProblem, Answered | None, Literal["gold", "other"] | None] | LeftOut:
    """The row's problem; with options its answer, of which the whole column tells which of them it names, is apart. And which
    answer the question ends with; None with options."""
    columns = source.columns
    asked = question_of(row, columns.question, location)
    answer = None if columns.answer is None else column(row, columns.answer, "columns.answer", location)
    if asked is None or (columns.answer is not None and is_empty(answer)):
        return "empty"
    question = asked.content
    options = _options(row, columns, read, question, location)
    golds = [] if columns.answer is None else _golds(answer, options, taken, columns, location)
    if columns.answer is not None and not golds:
        return "unmatched"
    written = options if columns.options is not None else None
    answered = (
        None
        if options is None or columns.answer is None
        else Answered(golds[0] if len(golds) == 1 else golds, options, location)
    )
    problem = RawProblem(
        _under_system(question if written is None else under_question(question, written), row, columns, location),
        golds[0] if golds and answered is None else None,
        name if columns.source is None else _source_of(row, columns.source, location),
        other_answers=golds[1:] if answered is None else [],
        options="" if written is None else written.lines,
        meta=_kept(row, columns, read, options, location),
        split=source.split,
        is_cut=asked.is_cut,
        is_unfilled=asked.is_unfilled,
    )
    return problem, answered, shown_answer(question, golds) if options is None else None


def _letters(answered: dict[int, Answered], columns: Columns) -> dict[int, list[str]]:
    """{number of the problem: letters of its right options}"""
    letters = letters_of_column(
        list(answered.values()),
        columns.first_option or 0,
        is_counted=columns.first_option is not None,
        are_texts=isinstance(columns.options, list) and columns.answer in columns.options,
    )
    return dict(zip(answered, letters, strict=True))


def _answers(golds: list[str]) -> dict[str, Any]:
    return {"answer": golds[0], "other_answers": golds[1:]}


def _under_system(
    question: str | list[Message], row: dict[str, Any], columns: Columns, location: str
) -> str | list[Message]:
    """The question after the row's own system message, where it has one.

    Raises:
        ConfigError: that is no text, or the conversation has another one.
    """
    if columns.system is None or is_empty(said := column(row, columns.system, "columns.system", location)):
        return question
    if not isinstance(said, str):
        raise ConfigError(f"{location}: columns.system is {shortened(said)}; it must be a text")
    messages = [Message(role="user", content=question)] if isinstance(question, str) else question
    own = [message["content"].strip() for message in messages if message["role"] == "system"]
    if own and own != [said.strip()]:
        raise ConfigError(
            f"{location}: the conversation has the system message {shortened(own[0])}, and column {columns.system!r} says "
            f"{shortened(said)}; leave columns.system out, or mend the row"
        )
    return messages if own else [Message(role="system", content=said), *messages]


def _source_of(row: dict[str, Any], name: str, location: str) -> str:
    """The name of the row's source."""
    value = column(row, name, "columns.source", location)
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{location}: the source is {shortened(value)}; it must be a name")
    return value


def _refuse_many(source: RowSource, name: str, num_problems: int, left_out: dict[str, list[str]]) -> None:
    total = num_problems + sum(map(len, left_out.values()))
    for reason, locations in left_out.items():
        if len(locations) <= MAX_SHARE * total:
            continue
        share, first = f"{len(locations)} of {total}", locations[0]
        if reason == "unreadable":
            raise ConfigError(f"{name}: {share} rows cannot be read, for instance {first}")
        if reason == "empty":
            raise ConfigError(
                f"{name}: the question or the answer is empty in {share} rows, for instance {first}; name their columns in "
                "columns.question and columns.answer, or set columns.answer to null for data without gold answers"
            )
        if source.answer_place is None and source.answer_pattern is None:
            raise ConfigError(
                f"{name}: the answer is none of the options in {share} rows, for instance {first}; mend columns.options or "
                "columns.answer"
            )
        asked, what = _asked(source)
        raise ConfigError(f"{name}: {asked} is missing in {share} answers; mend the {what} or columns.answer")
    if num_problems == 0:
        raise ConfigError(f"{name} is empty; it needs a row a problem with a question and an answer")


def _refuse_leaks(name: str, num_problems: int, shown: dict[str, list[str]]) -> None:
    leaking, num_shown = shown["gold"], sum(map(len, shown.values()))
    if len(leaking) > MAX_SHARE * num_problems and len(leaking) >= NEARLY_ALL * num_shown:
        raise ConfigError(
            f"{name}: the question ends with its own answer in {len(leaking)} of {num_problems} rows, for instance {leaking[0]}; "
            "name a column with the question alone in columns.question; or, where the task is to read the answer off, a template "
            'that goes on after it ("{question}\n\nYour answer:")'
        )


def _asked(source: RowSource) -> tuple[str, str]:
    if source.answer_place is not None:
        return f"answer_place={source.answer_place}", "place"
    return f"answer_pattern={source.answer_pattern!r}", "pattern"


# ---- answer ---------------------------------------------------------------------------------------------------------


def _golds(answer: Any, options: Options | None, taken: Taker | None, columns: Columns, location: str) -> list[Any]:
    """The gold answers, any of which is right, as they stand with options; none where they are not found."""
    if options is not None and taken is None:
        return answer if isinstance(answer, list) else [answer]
    texts = answer_texts(answer, str(columns.answer), location)
    found = [text for text in ((taken or str)(text) for text in texts) if text]
    for text in found:
        _refuse_valueless(text, location)
    return list(dict.fromkeys(found)) if options is None else found


def answer_texts(value: Any, setting: str, location: str) -> list[str]:
    """The answers that a column holds, as texts.

    Raises:
        UnreadableRow: it holds something else than texts, numbers, dates and truth values.
    """
    if isinstance(value, list):
        return [text for item in value if not is_empty(item) for text in answer_texts(item, setting, location)]
    if isinstance(value, bool):
        return ["True", "Yes"] if value else ["False", "No"]
    if isinstance(value, datetime.date | datetime.time):
        return [value.isoformat()]
    if isinstance(value, float | Decimal) and not math.isfinite(value):
        raise UnreadableRow(f"{location}: the answer is {value}, which is no number; write it as a text if it is meant")
    if isinstance(value, str | int | float | Decimal):
        return [within_limit(str(value).strip(), f"{location}: the answer")]
    raise UnreadableRow(
        f"{location}: the answer is {shortened(value)}; it must be a text or a number, or a list of these"
        f"{inside(value, setting, 'columns.answer')}"
    )


def _refuse_valueless(answer: str, location: str) -> None:
    """Refuse a gold answer that is the text of no number (NaN, as Python and pandas write it), or of one that is too long."""
    if answer in NOT_A_NUMBER:
        raise UnreadableRow(f"{location}: the answer is {answer!r}, as a missing number is written; mend the row")
    if NUMBER.fullmatch(answer) and as_fraction(answer) is None:
        raise UnreadableRow(
            f"{location}: the answer {shortened(answer)} is a number of more than {MAX_DIGITS} digits, or with an exponent over "
            f"{MAX_EXPONENT}, which no checker compares; leave the row out"
        )


def _taker(source: RowSource, name: str) -> Taker | None:
    """What the configuration says about how the gold answer is found; None where it is the whole text."""
    if source.answer_place is not None:
        return partial(gold_in_solution, place=source.answer_place)
    if source.answer_pattern is None:
        return None
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


# ---- other columns --------------------------------------------------------------------------------------------------


def _options(
    row: dict[str, Any], columns: Columns, read: ColumnsRead, question: str | list[Message], location: str
) -> Options | None:
    """The question's options: those that the configuration names, or else those that a reward reads."""
    if isinstance(columns.options, list):
        values = [column(row, name, "columns.options", location) for name in columns.options]
        if columns.options == list(ascii_uppercase[: len(values)]) and columns.answer not in columns.options:
            return read_options(dict(zip(columns.options, values, strict=True)), location)
        options = read_options(
            [item for value in values for item in (value if isinstance(value, list) else [value])], location
        )
        return shuffled(options, str(question)) if columns.answer in columns.options else options
    if columns.options is not None:
        return read_options(column(row, columns.options, "columns.options", location), location)
    there = [value for name in sorted(read.choices) if (value := lookup(row, name)) is not MISSING]
    return read_options(there[0], location) if there else None


def _level(row: dict[str, Any], setting: str | DifficultyColumn | None, location: str) -> Any:
    """What the column of the difficulty holds; None where the configuration names none and there is none."""
    if setting is None:
        return row.get("difficulty")
    return column(row, setting if isinstance(setting, str) else setting.column, "columns.difficulty", location)


def _kept(
    row: dict[str, Any], columns: Columns, read: ColumnsRead, options: Options | None, location: str
) -> dict[str, Any]:
    """The columns that rewards read, under the names by which the configuration or the reward calls them.

    Of those that a reward merely names, values that JSON cannot hold (images, dates) are left out.
    """
    named = {
        name: row[name] for name in sorted(read.names & row.keys()) if name not in (columns.question, columns.answer)
    }
    kept = {name: value for name, value in named.items() if _is_json(value)}
    for name in columns.keep:
        kept[name] = column(row, name, "columns.keep", location)
        if not _is_json(kept[name]):
            raise ConfigError(
                f"{location}: {name!r} holds {type(kept[name]).__name__}, which JSON cannot; leave it out of columns.keep"
            )
    return kept if options is None else kept | dict.fromkeys([CHOICES, *read.choices], options.texts)


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True
