"""Tells the thoughts of a response from its answer, by the marks that models put around their thoughts.

The chat templates of many models end the prompt with the opening mark, so that the response has the closing one alone.
"""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass

LONGEST_BEGINNING = 200
"""characters at the end of a prompt in which an opening mark is looked for"""


@dataclass(frozen=True)
class Marks:
    """What stands before and after a thought. A mark may be several tokens: `tokens` are those that it may consist of."""

    opening: re.Pattern[str]
    closing: re.Pattern[str]
    tokens: tuple[str, ...]


def _pair(opening: str, closing: str, tokens: tuple[str, ...] = ()) -> Marks:
    """The marks for two literal texts, in any case."""
    opens, closes = (re.compile(re.escape(mark), re.IGNORECASE) for mark in (opening, closing))
    return Marks(opens, closes, tokens or (opening, closing))


CHANNEL = "<|channel|>"
END = "<|end|>"
HARMONY = Marks(
    re.compile(r"<\|channel\|>\s*(?:analysis|commentary)\b[^<]*(?:<\|message\|>)?"),
    re.compile(r"<\|channel\|>\s*final\b[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>"),
    (CHANNEL, "<|message|>", "<|start|>", END),
)
"""gpt-oss writes messages in channels, of which `final` is the answer"""
MARKS = (
    _pair("<think>", "</think>"),  # DeepSeek-R1, Qwen, GLM, and most others
    _pair("<thinking>", "</thinking>"),
    _pair("<thought>", "</thought>"),  # EXAONE
    _pair("<reasoning>", "</reasoning>"),
    _pair("<seed:think>", "</seed:think>"),  # Seed-OSS
    _pair("[THINK]", "[/THINK]"),  # Magistral
    _pair("\u25c1think\u25b7", "\u25c1/think\u25b7"),  # Kimi
    _pair("<|begin_of_thought|>", "<|end_of_thought|>"),  # Sky-T1, OpenThinker
    _pair("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A
    _pair("<|channel>thought", "<channel|>", ("<|channel>", "<channel|>")),  # Gemma 4
    HARMONY,
)


def answer_of(text: str) -> str:
    """The text after the thoughts: what follows the last closing mark, up to a thought that is opened again and cut off.

    Empty where the only thought is cut off.

    `text` begins with the opening mark that the prompt ends with, if there is one (`Completion.response`).

    >>> answer_of("<think>5 or 6?</think> It is 6."), answer_of("5 or 6?</think> It is 6."), answer_of("<think>5 or 6")
    (' It is 6.', ' It is 6.', '')
    """
    start = 0
    for marks in MARKS:
        end = max((match.end() for match in marks.closing.finditer(text)), default=0)
        if (again := marks.opening.search(text, end)) is not None:
            if not end:
                return ""
            text = text[: again.start()]
        if marks is HARMONY and end:
            text = text[:end] + text[end:].partition(END)[0]
        start = max(start, end)
    return text[start:]


def begun_by(prompt: str) -> str:
    r"""The end of a rendered prompt that belongs to the response: an opening mark, and the white space after it.

    >>> begun_by("<|im_start|>assistant\n<think>\n"), begun_by("<think>\n\n</think>\n\n")
    ('<think>\n', '')
    """
    end = prompt[-LONGEST_BEGINNING:]
    for marks in MARKS:
        for match in marks.opening.finditer(end):
            if not end[match.end() :].strip():
                return end[match.start() :]
    return ""


def mark_tokens(special: Set[str]) -> frozenset[str]:
    """Those of a tokenizer's special tokens that marks of thoughts consist of."""
    return frozenset(
        token
        for marks in MARKS
        if marks is not HARMONY or CHANNEL in special  # other templates end any message with <|end|>
        for token in marks.tokens
        if token in special
    )
