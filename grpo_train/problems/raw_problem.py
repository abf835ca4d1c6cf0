"""A question with its gold answer, as a source gives it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from configs.records import Message


@dataclass(frozen=True)
class RawProblem:
    """A question and its gold answer, as the source gives them."""

    question: str | list[Message]
    answer: str | None
    """None where the source gives no gold answer; the empty text is an answer"""
    source: str
    other_answers: list[str] = field(default_factory=list)
    """further gold answers, each of which is right too"""
    options: str = ""
    """the lines of options at the end of the question; often empty"""
    meta: dict[str, Any] = field(default_factory=dict)
    difficulty: float | None = None
    split: str | None = None
    """the split that the source is reserved for; None where its problems are split by hash"""
    is_text: bool = True
    """True for written text, in which shared n-grams count as overlap; False for procedural families"""
    is_cut: bool = False
    """whether the conversation went on with an answer, which was left out"""
    is_unfilled: bool = False
    """whether a column of the question's template is null"""

    @cached_property
    def key(self) -> str:
        """sha256 of question and answer, in hex"""
        return hashlib.sha256(json.dumps([self.question, self.answer]).encode()).hexdigest()

    @property
    def text(self) -> str:
        """The question as one string."""
        if isinstance(self.question, str):
            return self.question
        return "\n".join(message["content"] for message in self.question)

    @property
    def stem(self) -> str:
        """The question as one string, without its options and system message."""
        if isinstance(self.question, str):
            return self.text.removesuffix(self.options)
        asked = [message["content"] for message in self.question if message["role"] != "system"]
        return "\n".join(asked).removesuffix(self.options)


@dataclass(frozen=True)
class SourceRows:
    """The problems of one source, and how many rows were left out."""

    problems: list[RawProblem]
    num_empty: int = 0
    """no question, or no answer"""
    num_unreadable: int = 0
    """something that is no question or answer"""
    num_unmatched: int = 0
    """no answer was found in the place or form that is asked for"""
    num_leaking: int = 0
    """the question ends with its answer; they are among the problems"""
    examples: dict[str, str] = field(default_factory=dict)
    """{reason: where the first of these rows is, and what is wrong with it}"""


def as_difficulty(value: Any) -> float | None:
    """The value where it is a number in [0, 1], else None."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value <= 1 else None
