"""Extractors, which take the final answer out of a text. Each returns None where there is no answer."""

from __future__ import annotations

import re
from typing import Protocol

from configs.schema.rewards import OutcomeRewardConfig
from reward_training.answers.finding.final_answer import final_answer
from reward_training.answers.number import NUMBER


def last_number(text: str) -> str | None:
    """The last number as it is written; None where the text has none.

    >>> last_number("12 apples at $1,250.50 each. In all: -3.")
    '-3'
    """
    last = None
    for match in NUMBER.finditer(text):
        last = match.group()
    return last


def last_tag(text: str, tag: str) -> str | None:
    """The content of the last closed <tag>..</tag>, stripped; None where no such tag is closed.

    >>> last_tag("<answer>4</answer> no, <answer>5</answer>", "answer")
    '5'
    """
    end = text.rfind(f"</{tag}>")
    start = text.rfind(f"<{tag}>", 0, end) if end >= 0 else -1
    return text[start + len(tag) + 2 : end].strip() if start >= 0 else None


def whole(text: str) -> str | None:
    """The text without white space around it; None where that is empty."""
    return text.strip() or None


def is_left_empty(text: str, config: OutcomeRewardConfig) -> bool:
    r"""Whether the text ends with the place of the answer and has nothing in it: right where the gold answer is empty.

    >>> box = OutcomeRewardConfig(name="right", extract="boxed")
    >>> [is_left_empty(text, box) for text in (r"No root: $\boxed{}$.", r"\boxed{}, no: \boxed{3}", "")]
    [True, False, False]
    """
    empty = {
        "boxed": r"\\boxed\{\s*\}",
        "hash": "####",
        "tag": rf"<{config.tag}>\s*</{config.tag}>",
        "json": rf'"{config.field}"\s*:\s*""\s*\}}',
    }
    if config.extract == "whole":
        return not text.strip()
    places = list(empty.values()) if config.extract == "final" else [empty.get(config.extract, r"(?!)")]
    return re.search(rf"(?:{'|'.join(places)})[\s$.*`]*(?:\\[)\]])?\s*\Z", text) is not None


class Extractor(Protocol):
    """Takes the answer out of a response to a prompt; None where there is none."""

    def __call__(self, text: str, prompt: str = "") -> str | None: ...


def extractor(config: OutcomeRewardConfig) -> Extractor:
    """The extractor that the configuration names."""

    def plainly(text: str, prompt: str = "") -> str | None:
        match config.extract:
            case "last_number":
                return last_number(text)
            case "tag":
                return last_tag(text, config.tag)
            case _:
                return whole(text)

    def strictly(text: str, prompt: str = "") -> str | None:
        return final_answer(
            text,
            config.extract,
            tag=config.tag,
            field=config.field,
            prompt=prompt,
            letters=config.checker == "choice",
            units=config.checker in ("numeric", "math"),
        )

    return strictly if is_strict(config) else plainly


def is_strict(config: OutcomeRewardConfig) -> bool:
    """Whether the strict rules hold, under which thoughts do not count."""
    return config.strict or config.extract not in ("last_number", "tag", "whole")
