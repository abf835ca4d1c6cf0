"""Reads the options of multiple-choice questions, and which of them the gold answer is."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from configs.disk.rows.columns import shortened, unpacked
from configs.errors import UnreadableRow
from configs.records import Message
from configs.seeds import rng_for

LABELS = ("label", "labels", "key", "letter", "id")
TEXTS = ("text", "texts", "value", "content", "option", "choice", "choices")
"""names under which data sets keep the label and the text of an option"""
LETTERED = re.compile(r"\s*[(\[]?([A-Za-z])\s*[).:\]]\s*(.*)", re.DOTALL)
MARK = re.compile(r"(?:^|(?<=[\s,;]))[(\[]?([A-Za-z])\s*[).:\]]\s")

Labelled = tuple[str | None, Any]
"""(label or None, text)"""


@dataclass(frozen=True)
class Options:
    """The options of one question, in order."""

    texts: dict[str, str]
    """{letter: text}"""
    labels: dict[str, str]
    """{label in the data: letter}; empty where the data has no labels"""
    order: tuple[str, ...]
    """the letter of each place in the data, also of a place that holds no option"""

    @property
    def lines(self) -> str:
        return "\n".join(f"{letter}. {text}" for letter, text in self.texts.items())


def read_options(value: Any, place: str, field: str = "columns.options") -> Options:
    """The options that a column holds: texts, a mapping of letters to texts, {text: [...], label: [...]}, mappings with a
    text and a label each, or a text that holds one of these as JSON or Python.

    Raises:
        UnreadableRow: it holds something else, or less than 2 or more than 26 options.
    """
    labelled = _without_end(_labelled(unpacked(value)))
    there = [not is_missing(text) for _, text in labelled]
    if sum(there) < 2 or len(labelled) > len(ascii_uppercase):
        raise UnreadableRow(
            f"{place}: {shortened(value)} is no list of 2 to 26 options; {field} takes a list of texts, a mapping of "
            "letters to texts, {text, label}, or names of columns"
        )
    labels = [label for label, _ in labelled]
    are_letters = all(label is not None and re.fullmatch("[A-Za-z]", label) for label in labels)
    letters = [str(label).upper() for label in labels] if are_letters else list(ascii_uppercase[: len(labelled)])
    if len(set(letters)) < len(letters):
        raise UnreadableRow(f"{place}: {shortened(value)} gives two options one label; mend the row")
    found = [
        (label, letter, text)
        for (label, text), letter, is_there in zip(labelled, letters, there, strict=True)
        if is_there
    ]
    return Options(
        {letter: str(text).strip() for _, letter, text in found},
        {label: letter for label, letter, _ in found if label is not None},
        tuple(letters),
    )


def _labelled(value: Any) -> list[Labelled]:
    """The options with their labels, if any; empty where the value holds none."""
    if isinstance(value, dict):
        texts, labels = _first_list(value, TEXTS), _first_list(value, LABELS)
        if texts is not None and labels is not None and len(texts) == len(labels):
            return [(str(label), text) for label, text in zip(labels, texts, strict=True)]
        return [(str(label), text) for label, text in value.items()] if _are_texts(list(value.values())) else []
    if isinstance(value, list | tuple) and all(isinstance(item, dict) for item in value):
        pairs = [(first_of(item, LABELS), first_of(item, TEXTS)) for item in value]
        if not all(text is not None for _, text in pairs):
            return []
        has_labels = all(label is not None for label, _ in pairs)
        return [(str(label) if has_labels else None, text) for label, text in pairs]
    if isinstance(value, list | tuple) and _are_texts(value):
        return _without_letters(list(value))
    return _in_one_text(value) if isinstance(value, str) else []


def _in_one_text(text: str) -> list[Labelled]:
    """The options of a text that holds all of them, each after its letter: `a ) 12 , b ) 16`."""
    marks: list[re.Match[str]] = []
    for match in MARK.finditer(text):
        if match[1].upper() == ascii_uppercase[len(marks) : len(marks) + 1]:
            marks.append(match)
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    return [(mark[1].upper(), text[mark.end() : end].strip(" ,;\n")) for mark, end in zip(marks, ends, strict=False)]


def _without_letters(texts: list[Any]) -> list[Labelled]:
    """The texts, apart from the letters that they begin with where each begins with its own: `A)21`."""
    matches = [LETTERED.fullmatch(str(text)) for text in texts]
    own = [match[1].upper() if match else "" for match in matches]
    if own == list(ascii_uppercase[: len(texts)]):
        return [(match[1].upper(), match[2]) for match in matches if match]
    return [(None, text) for text in texts]


def _are_texts(values: Sequence[Any]) -> bool:
    return all(value is None or isinstance(value, str | int | float) for value in values)


def _first_list(value: dict[str, Any], names: Sequence[str]) -> list[Any] | None:
    return next((value[name] for name in names if isinstance(value.get(name), list)), None)


def first_of(value: dict[str, Any], names: Sequence[str]) -> Any:
    return next((value[name] for name in names if value.get(name) is not None), None)


def _without_end(labelled: list[Labelled]) -> list[Labelled]:
    """Without the missing options at the end, with which some data fill up the columns."""
    while labelled and is_missing(labelled[-1][1]):
        labelled = labelled[:-1]
    return labelled


def is_missing(text: Any) -> bool:
    return text is None or (isinstance(text, float) and math.isnan(text)) or not str(text).strip()


def shuffled(options: Options, question: str) -> Options:
    """The options in an order that the question decides, for data in which the right one has a column of its own."""
    texts = list(options.texts.values())
    order = rng_for(0, f"options {question}").permutation(len(texts))
    return Options({letter: texts[i] for letter, i in zip(options.texts, order, strict=True)}, {}, tuple(options.texts))


def under_question(question: str | list[Message], options: Options) -> str | list[Message]:
    """The question, or its last message, with the options under it, one a line."""
    if isinstance(question, str):
        return f"{question}\n{options.lines}"
    return [*question[:-1], question[-1] | {"content": f"{question[-1]['content']}\n{options.lines}"}]
