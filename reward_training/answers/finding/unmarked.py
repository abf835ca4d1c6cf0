"""Finds the answer in a text that marks no place for it: the text itself where it is nothing else, or a letter.

`committed_number` finds numbers and formulas in sentences.
"""

from __future__ import annotations

import re

from reward_training.answers.finding.places import is_placeholder
from reward_training.answers.plain_text import plain
from reward_training.answers.values.quantity import Quantity
from reward_training.answers.values.reading import read
from reward_training.answers.values.value import Words

MAX_BARE_WORDS = 6
YES_OR_NO = re.compile(r"(yes|no|true|false)\b(?=[.,!;]|$)", re.IGNORECASE)
COMMAND = re.compile(r"\\(?:begin|end|text|mathrm|mathbf|operatorname)\s*\{[^{}]*\}|\\[A-Za-z]+")
VERB = re.compile(r"\b(?:is|are|was|were|it's|i'm|think|believe|know|must|can|cannot)\b", re.IGNORECASE)
CLOCK = re.compile(
    r"\W*(?:\d+:\d+(?:\s?[ap]\.?m\.?)?|(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]* \d{1,2}(?:, \d{4})?|[A-Za-z]+\d+[A-Za-z\d]*)\W*",
    re.IGNORECASE,
)
"""a time, a date, or letters with digits: H2O"""
SENTENCE_WORD = re.compile(
    r"(?<![\\A-Za-z])(?!and\b|or\b|a?sin|a?cos|a?tan|arc|log\b|ln|sqrt|pi\b|inf)[A-Za-z]{3,}|\b(?:is|it|so|we)\b",
    re.IGNORECASE,
)
"""a word that a bare formula does not have"""


def bare_answer(text: str) -> str | None:
    """The text itself, stripped, where it is an answer and nothing else: a formula, or a few words without a number."""
    line = text.strip()
    if not line or "\n" in line or line.endswith("?") or is_placeholder(line):
        return None
    if (said := YES_OR_NO.match(line)) is not None:
        return said.group(1)
    value = read(line)
    if isinstance(value, Words):
        is_short = len(line.split()) <= MAX_BARE_WORDS and not re.search(r"\d", plain(line)) and not VERB.search(line)
        return line if is_short or CLOCK.fullmatch(line) else None
    is_plain_number = isinstance(value, Quantity) and not re.search(r"[\\^$]", line)
    return None if is_plain_number or SENTENCE_WORD.search(COMMAND.sub(" ", line)) else line


MAX_CHARACTERS = 1000
"""characters at the end of a text in which a letter is looked for"""
LETTER = r"[(\[*]{0,3}([A-H])[)\]*]{0,3}"
MARKED_LETTER = re.compile(r"[(\[*]{0,4}[A-H]\*{0,2}[).:\]]")
LINE = re.compile(r"[^\n]{1,300}")
"""a choice with its text, or its text alone, and nothing else: D) Jupiter"""
LETTER_ALONE = re.compile(rf"(?:^|[.:\n])\s*{LETTER}\s*(?=[.\n]|$)")
LETTER_NAMED = re.compile(
    rf"(?<!not )(?<!n't )\b(?:[Oo]ption|[Cc]hoice|[Aa]nswer|[Ll]etter|[Cc]hoose|[Cc]hose|[Pp]ick|[Ss]elect|[Gg]o with)(?:\s+is)?\s*:?\s*{LETTER}(?![\w'])"
)
LETTER_AT_END = re.compile(
    r"\b(?:it\s+is|it's|(?:must|has to|should|can only) be|leaves(?: us with)?|so|thus|therefore|hence|namely),?\s+"
    r"[(\[*]{0,3}(?-i:([A-H]))(?=[)\]*]{0,3}(?:[.,;!\n]|\s*$))",
    re.IGNORECASE,
)
"""after a word that leads to the result, and at the end of its clause: `Therefore it is D.`"""
LETTER_CHOSEN = re.compile(r"(?:\u6545\u9009|\u9009\u62e9|\u6545\u9078)\s*[:\uff1a]?\s*[(\uff08]?([A-H])")
LETTER_CALLED_RIGHT = re.compile(rf"{LETTER}\s+is\s+(?:the\s+)?(?:correct|right|answer|best)\b")


ANOTHER_LETTER = re.compile(
    r"(?i:\b(?:wait|actually|second thought|or|also)\b),?(?: it is| it's| rather)?\s*[(\[*]{0,3}([B-H])\b(?!')"
)
"""a letter that takes the place of the one before, or stands beside it"""


def bare_choice(text: str) -> str | None:
    """The text itself, stripped, where it is one line that begins with a letter's mark, or that is no sentence."""
    line = text.strip()
    if LINE.fullmatch(line) is None:
        return None
    return line if MARKED_LETTER.match(line) or not VERB.search(line) else None


def committed_letter(text: str) -> str | None:
    """The one choice that a text names, alone in a sentence or as an option; None where it names none or several.

    >>> committed_letter("Plants take it in (option B). So: B."), committed_letter("Option A or option B.")
    ('B', None)
    """
    text = text[-MAX_CHARACTERS:]
    patterns = (LETTER_ALONE, LETTER_NAMED, LETTER_AT_END, LETTER_CHOSEN, LETTER_CALLED_RIGHT)
    matches = [match for pattern in patterns for match in pattern.finditer(text)]
    last = max((match.end(1) for match in matches), default=len(text))
    found = {match.group(1) for match in [*matches, *ANOTHER_LETTER.finditer(text, last)]}
    return found.pop() if len(found) == 1 else None
