"""Proposes blocks of `problems.sources` for rows, the likeliest first, by the names of their columns and what they hold.

A proposal is a guess; it counts only after the rows were read by it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

from flows.doctor.data.holding import Column, plain
from reward_training.answers.gold import gold_in_solution

Block = dict[str, Any]

QUESTIONS = (
    "question", "problem", "questiontext", "problemstatement", "query", "task", "questionstem", "stem", "question_concat",
    "prompt", "messages", "conversations", "conversation", "instruction", "input", "goal", "ctx", "sentence", "text", "content",
)  # fmt: skip
"""names of columns with the question, the likeliest first"""
BEFORE = ("context", "passage", "premise", "story", "article", "body", "background", "paragraph", "text", "hint")
"""names of columns with what the question is about"""
ANSWERS = (
    "groundtruth", "groundtruthanswer", "finalanswer", "finaldecision", "correctanswerid", "expectedanswer", "goldanswer", "gold", "answerkey", "answer", "answers", "correctanswer",
    "correctoption", "correct", "answeridx", "answerindex", "label", "target", "cop", "aliases", "normalizedaliases", "value",
    "reference", "referenceanswer", "solution", "output", "response", "completion", "rationale",
)  # fmt: skip
"""names of columns with the gold answer, the likeliest first"""
HOLDERS = ("answer", "answers", "answersspans", "answerspans")
INSIDE = ("text", "texts", "spans", "value")
"""names inside of a column of answers"""
OPTIONS = ("choices", "options", "endings", "candidates", "answerchoices", "alternatives", "answers")
WRONG = re.compile(r"(distractor|incorrect[ _]?answer|wrong[ _]?answer|incorrect|wrong)s?[ _]?\d*", re.IGNORECASE)
"""names of columns with one wrong option each"""
RIGHT = ("correctanswer", "rightanswer", "answer", "correct")
OPTION_COLUMN = re.compile(r"(option|choice|ending|answer|opt|op|sol)?_?([a-j]|\d{1,2})", re.IGNORECASE)
PLACES = ("hash", "boxed", "tag")
"""places of answers that a solution may have, the most telling first"""
ENOUGH = 0.9
"""share of the values in which a place or a form has to be found"""
LONG = 60
"""characters from which an answer is a solution or a text, which no checker compares"""
LEVELS = ("difficulty", "level", "difficultylevel", "solverate", "llama8bsolverate", "passrate", "successrate")


def problem_blocks(columns: Sequence[Column]) -> Iterator[Block]:
    """Columns and place of the answer, without kind and path."""
    for options in [*_options(columns), None]:
        yield from _blocks(columns, options)


def _blocks(columns: Sequence[Column], options: str | list[str] | None) -> Iterator[Block]:
    taken = [] if options is None else [options] if isinstance(options, str) else list(options)
    rest = [column for column in columns if not _is_of(column, taken)]
    right = [
        column for column in columns if column.name in taken and column.word in RIGHT and isinstance(options, list)
    ]
    answers = right or _answers(rest, options is not None)
    last = [None] if options is None else []
    for question, answer in product(_questions(rest), [*answers, *last]):
        if answer is not None and (answer.name == question or f"{{{answer.name}}}" in question):
            continue
        named: Block = {} if question == "question" else {"question": question}
        if answer is None or answer.name != "answer":
            named["answer"] = answer.name if answer else None
        if options is not None:
            named["options"] = options
            if answer is not None and not right and _counts_from_one(answer, columns, options):
                named["first_option"] = 1
        system = [
            c.name for c in columns if c.word in ("system", "systemprompt") and c.kind == "text" and "." not in c.name
        ]
        if system:
            named["system"] = system[0]
        if (level := _difficulty(columns)) is not None:
            named["difficulty"] = level
        yield ({"columns": named} if named else {}) | _place(answer if options is None else None)


def answers_passed_over(columns: Sequence[Column]) -> list[str]:
    """Columns with the name of an answer whose values no checker can compare."""
    return [column.name for column in _by_name(columns, ANSWERS) if _is_long(column) and not _place(column)]


def _is_of(column: Column, names: Sequence[str]) -> bool:
    return any(column.name == name or column.name.startswith(f"{name}.") for name in names)


def _by_name(columns: Sequence[Column], names: Sequence[str]) -> list[Column]:
    """The columns of these names, by the order of the names and, for one name, the outermost first."""
    named = [column for column in columns if column.word in names and column.kind not in ("nothing", "mixed")]
    return sorted(named, key=lambda column: (names.index(column.word), column.name.count(".")))


def _questions(columns: Sequence[Column]) -> Iterator[str]:
    found = [c for c in _by_name(columns, QUESTIONS) if c.kind in ("text", "conversation", "texts")]
    for column in sorted(found, key=lambda column: column.name.count(".")):  # what is outermost is what is asked
        inner = column.name.rpartition(".")[0]
        siblings = [other for other in columns if other.name.rpartition(".")[0] == inner and other.kind == "text"]
        before = [other for other in siblings if other.word in BEFORE and not _holds_already(column, other)]
        if column.kind == "text" and before and column.word in ("question", "query", "questionstem"):
            yield f"{{{before[0].name}}}\n\n{{{column.name}}}"
        more = [other for other in siblings if other.word == "input"]
        if column.word == "instruction" and more:
            yield f"{{{column.name}}}\n\n{{{more[0].name}}}"
        yield column.name


def _answers(columns: Sequence[Column], has_options: bool) -> list[Column]:
    """Columns of answers that a checker can compare: short ones, and solutions that mark their answer."""
    kinds = ("text", "number", "texts", "list", "flag")
    inside = [
        column for column in columns if column.word in INSIDE and plain(column.name.split(".")[-2:][0]) in HOLDERS
    ]
    found = [column for column in [*_by_name(columns, ANSWERS), *inside] if column.kind in kinds]
    marks = [c for c in columns if has_options and c.word == "labels" and c.kind == "list"]
    return sorted(
        (c for c in [*found, *marks] if _place(c) or not _is_long(c)), key=lambda column: bool(_place(column))
    )


def _holds_already(question: Column, before: Column) -> bool:
    """Whether most questions contain the text that would be put before them."""
    rows = zip(question.values, before.values, strict=True)
    both = [(asked, told) for asked, told in rows if isinstance(asked, str) and isinstance(told, str)]
    return 2 * sum(told.strip() in asked for asked, told in both) > len(both)


def _is_long(column: Column) -> bool:
    texts = [value for value in column.held if isinstance(value, str)]
    return bool(texts) and sum(len(text) > LONG for text in texts) > (1 - ENOUGH) * len(texts)


def _place(answer: Column | None) -> Block:
    """The place of the answer in a solution, where nearly all have one."""
    if answer is None or answer.kind != "text":
        return {}
    texts = [str(value) for value in answer.held]
    for place in PLACES:
        found = sum(gold_in_solution(text, place) is not None for text in texts if len(text) > 1)
        if texts and found >= ENOUGH * len(texts) and _is_marked(texts, place):
            return {"answer_place": place}
    return {}


def _is_marked(texts: Sequence[str], place: str) -> bool:
    mark = {"hash": "####", "boxed": "\\boxed", "tag": "<answer>"}[place]
    return sum(mark in text for text in texts) >= ENOUGH * len(texts)


# ---- options --------------------------------------------------------------------------------------------------------


def _options(columns: Sequence[Column]) -> Iterator[str | list[str]]:
    """Columns of options, the likeliest first."""
    named = [column for column in _by_name(columns, OPTIONS) if column.kind in ("texts", "mapping", "list", "text")]
    yield from (column.name for column in named if column.word != "answers")
    groups: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for column in columns:
        outer, _, last = column.name.rpartition(".")
        match = OPTION_COLUMN.fullmatch(last)
        if match and column.kind in ("text", "number"):
            groups.setdefault((outer, plain(match[1] or "")), []).append((match[2], column.name))
    numbered = [sorted(group) for group in groups.values() if len(group) > 1 and _runs_on(sorted(group))]
    yield from ([name for _, name in group] for group in numbered)
    wrong = [column.name for column in columns if WRONG.fullmatch(column.name) and column.kind in ("text", "number")]
    right = [column.name for column in columns if column.word in RIGHT and column.kind in ("text", "number")]
    if wrong and right:
        yield [right[0], *wrong]
    yield from (c.name for c in named if c.word == "answers" and c.kind == "texts" and _are_options(c))


def _are_options(column: Column) -> bool:
    """Whether all lists have the same number of texts, three or more: options rather than several right answers."""
    sizes = {len(value) for value in column.held}
    return len(sizes) == 1 and min(sizes) > 2


def _runs_on(group: Sequence[tuple[str, str]]) -> bool:
    """Whether letters or numbers follow one another, from a, 0 or 1 on."""
    marks = [mark.lower() for mark, _ in group]
    numbers = [int(mark) if mark.isdigit() else ord(mark) - ord("a") for mark in marks]
    return numbers[0] in (0, 1) and sorted(numbers) == list(range(numbers[0], numbers[0] + len(numbers)))


def _counts_from_one(answer: Column, columns: Sequence[Column], options: str | list[str]) -> bool:
    """Whether the answers are numbers of options counted from 1: none is 0, and one is the number of options."""
    if answer.kind not in ("number", "text") or not all(str(value).strip().isdigit() for value in answer.held):
        return False
    numbers = [int(value) for value in answer.held]
    lists = [value for c in columns if c.name == options for value in c.held if isinstance(value, list | dict)]
    most = len(options) if isinstance(options, list) else max(map(len, lists), default=0)
    return bool(numbers) and min(numbers) >= 1 and max(numbers) == most


# ---- difficulty -----------------------------------------------------------------------------------------------------


def _difficulty(columns: Sequence[Column]) -> str | Block | None:
    """How a column of difficulties is mapped; None where there is none, or its range cannot be told."""
    for column in _by_name(columns, LEVELS):
        found = [re.search(r"-?\d+(?:\.\d+)?", str(value)) for value in column.held]
        numbers = [float(match[0]) for match in found if match]
        if len(numbers) < len(column.held):
            continue
        low, high = min(numbers), max(numbers)
        if column.word.endswith("rate"):
            return {"column": column.name, "easy": 100 if high > 1 else 1, "hard": 0}
        if low >= 0 and high <= 1:
            return None if column.name == "difficulty" else column.name
        if low < high:
            return {"column": column.name, "easy": int(low), "hard": int(high)}
    return None
