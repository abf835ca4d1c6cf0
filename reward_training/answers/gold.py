"""Gold answers: what type they have, and where they stand in a solution."""

from __future__ import annotations

import re

from reward_training.answers.finding.final_answer import final_answer
from reward_training.answers.finding.places import boxed
from reward_training.answers.values.reading import read
from reward_training.answers.values.value import Value, kind

BRACE = re.compile(r"\\[{}]|[{}]")
MARK = re.compile(r"(?<!\S)####(?!#)")


def gold_value(gold: str) -> Value:
    r"""The value of a gold answer, which may also be a solution with a box in it.

    >>> gold_value(r"So \(x = \boxed{3}\).") == gold_value("3")
    True
    """
    return read(boxed(gold) or gold)


def type_of(gold: str) -> str:
    r"""What a gold answer is read as; `broken` where its braces do not close.

    >>> type_of("3,000"), type_of("(1, 2)"), type_of("Paris"), type_of(r"\frac{1"), type_of("")
    ('number', 'tuple', 'words', 'broken', 'empty')
    """
    if not gold.strip():
        return "empty"
    braces = [brace for brace in BRACE.findall(gold) if len(brace) == 1]
    return kind(gold_value(gold)) if braces.count("{") == braces.count("}") else "broken"


def gold_in_solution(solution: str, place: str) -> str | None:
    r"""The gold answer in the place of a solution that `place` names, as `extract` does; None without one.

    A solution is no response that may fish for the right answer: after `####` is after the last one, whatever the earlier ones
    are (headings, steps).

    >>> gold_in_solution("5 + 3 = 8\n#### 8", "hash"), gold_in_solution(r"It is $\boxed{\frac{1}{2}}$.", "boxed")
    ('8', '\\frac{1}{2}')
    """
    if place == "boxed":
        return boxed(solution) or None
    starts = [mark.start() for mark in MARK.finditer(solution)] if place == "hash" else []
    return final_answer(solution[max(starts, default=0) :], place, units=False)
