"""Other writings of a gold answer, which are right, and changed ones, which are wrong: what a checker is tried on.

A gold answer that is only compared with itself proves nothing: a checker that accepts everything passes.
"""

from __future__ import annotations

import re

from reward_training.answers.number import MAX_DIGITS
from reward_training.answers.values.reading import read
from reward_training.answers.values.value import Words

DIGITS = re.compile(r"\d+")
SIGN = re.compile(r"\s*([-+=<>,;&]|\\(?:times|cdot|le|ge|leq|geq|cup|pm))(?![A-Za-z])\s*")
LETTER = re.compile(r"(?<![A-Za-z\\])[a-zA-Z](?![A-Za-z])")
MAX_CHANGES = 8
"""changed answers that are made of one"""


def rewritten(gold: str) -> list[str]:
    r"""The gold answer in other writings: with other white space, in LaTeX's other spellings, and as a formula.

    >>> rewritten(r"\frac{1}{2}, x+1")
    ['\\frac{1}{2} , x + 1', '\\dfrac{1}{2}, x+1', '$\\frac{1}{2}, x+1$']
    """
    value = read(gold)
    if isinstance(value, Words) and not value.has_formula:
        return [f" {gold} ", f"\\text{{{gold}}}" if re.fullmatch(r"[\w\s]+", gold) else gold, f"**{gold}**"]
    spaced = (
        gold
        if re.search(r"\\text|\d,\d{3}|,\\!|\{,\}|e[-+]\d|\\begin|(?<!\\)\b[A-Za-z]{3}", gold)
        else SIGN.sub(r" \1 ", gold).strip()
    )
    spelled = gold.replace(r"\frac", r"\dfrac").replace("(", r"\left(").replace(")", r"\right)")
    spelled = gold if r"\left" in gold else spelled
    inline = gold if "$" in gold else f"${gold}$"
    return [spaced, spelled if r"\dfrac" not in gold else gold.replace(r"\dfrac", r"\frac"), inline]


def changed(gold: str) -> list[str]:
    """The gold answer with one number, letter or word changed, at each of its first MAX_CHANGES places.

    >>> changed("(1, 2)"), changed("x"), changed("Paris")
    (['(2, 2)', '(1, 3)'], ['y'], ['not Paris'])
    """
    places = [match for match in DIGITS.finditer(gold) if len(match.group()) < MAX_DIGITS][:MAX_CHANGES]
    if places:
        return [gold[: m.start()] + _next(m.group()) + gold[m.end() :] for m in places]
    letters = list(LETTER.finditer(gold))[:MAX_CHANGES]
    if letters and not isinstance(read(gold), Words):
        return [gold[: m.start()] + ("y" if m.group() != "y" else "x") + gold[m.end() :] for m in letters]
    return [f"not {gold}"]


def _next(digits: str) -> str:
    """The next whole number, with as many leading zeros: 0.09 becomes 0.10."""
    return str(int(digits) + 1).zfill(len(digits))
