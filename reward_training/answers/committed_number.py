"""The last number that a text commits to, where no place is marked for the answer.

Not every last number is one: it may be denied, one end of a range, an operand, a list number, the exponent of a unit, part of a
question, of an unfinished sentence, of a check, of a footer, or an echo of the prompt.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from reward_training.answers.plain_text import plain
from reward_training.answers.quantity import LARGE, UNSIGNED

GOES_ON = re.compile(r"\b(?:we|i|you|they|and|then|to|the|is|are|now|so|by|that|which|let)\b", re.IGNORECASE)
MAX_UNIT_WORDS = 3
"""that may stand after the number of a sentence without an end"""
MAX_CHARACTERS = 8000
"""of a text's end; what it commits to stands there"""
NEAR = 200
"""characters on either side that are looked at"""
CANDIDATE = re.compile(rf"(?<![\w.,])(?:(?<![\w)\]}}])[-+])?\s?(?:{UNSIGNED})(?:\s*/\s*\d+(?![\d/]))?")
LIST_MARK = re.compile(
    r"(?m)^\s*(?:\(?\d{1,2}[.)](?=\s)|(?:step|part|method|case|line|question|q)\s*\d{1,2}\s*[:.)-]|[-*•]\s+(?=\D))",
    re.IGNORECASE,
)
SENTENCE = re.compile(r"[^\n.!?;]*(?:\.(?=\d)[^\n.!?;]*)*(?:[.!?;]+|\n|$)")
CHECKS = re.compile(r"^\s*(?:let me |to |we )?(?:check|verify|proof|double-check|test|sanity)\b", re.IGNORECASE)
BOILERPLATE = re.compile(
    r"\b(?:24/7|24 hours a day|our (?:tutors?|team|support|experts?)|sent from|signature|unsubscribe|let me know|feel free|copyright|all rights|version|page|chapter|https?|www|©|happy to help|good luck|have a (?:great|nice)|thank|rated?|stars?|tokens?|generated|updated|contact|call|visit)\b|©",
    re.IGNORECASE,
)
REFERENCE = re.compile(
    r"(?m)^\s*\[\d+\]\s+\S.*$|\b(?:pp?|ch|vol|sec|fig|eq)\.\s*\d+(?:\s*-\s*\d+)?"
    r"|(?<=[a-z]{4})(?<!equals)\s\[\d{1,3}\](?=[.,])",
    re.IGNORECASE,
)
"""an entry of a list of sources, the page or chapter that a text points to, and the mark that points to a source"""
TAKEN_BACK = re.compile(
    r"\b(?:scratch that|(?:take|took) (?:that|it|this) back|(?:disregard|ignore|forget) (?:that|this|it|my)|i miscounted|no longer sure|"
    r"not sure any ?more|(?:that|this|which) (?:is|was) (?:wrong|incorrect|not right))\b",
    re.IGNORECASE,
)
DENIED_AFTER = re.compile(
    r"^\s*(?:(?:is|was|are|were|be|can|could|would|will|does|did|has)\s*(?:not\b|n't|never\b)|cannot\b|"
    r"(?:is|was|are|were|must be|has to be)\s+(?:wrong|incorrect|false|too (?:low|high|much|many|few|small|large|big)|no longer)\b)",
    re.IGNORECASE,
)
DENIED_VERB = re.compile(
    r"\b(?:did|does|do|was|were|is|are)\s*(?:not|n't)(?:\s+(?!and\b|but\b|so\b|because\b|only\b)[a-z]+){0,3}\s*$",
    re.IGNORECASE,
)
SUPPOSES = re.compile(
    r"^\s*(?:but |and |so |now )?(?:if|suppose|assum\w+|when|since|because|although|imagine)\b", re.IGNORECASE
)
DENIES = re.compile(
    r"(?:\bnot|n't|\bnever|\brather than|\binstead of|\bthan|≠|!=|\bneither|\bnor|\bwithout|\bbut not|\bcannot be|\bexcept|\bunlike|\bover|\bunder|\bnearly|\balmost)(?:\s+(?:be|the|a|an|it's|it is|is|exactly|even|equal to|only))*\s*$",
    re.IGNORECASE,
)
DOUBTS = re.compile(
    r"n't (?:think|believe|say|know)|\b(?:doubt|no way|not sure|(?:wrong|false|incorrect|an error|a mistake) (?:to|that)|hardly|deny|denies)\b",
    re.IGNORECASE,
)
GRADING = re.compile(
    r"\b(?:confidence|certainty|scores?|grades?|rewards?|verdict|rating|marks|points)\b", re.IGNORECASE
)
GROUPED = re.compile(r"\d{1,3}(?:,\d{3})+(?!\d)")
ENUMERATION = re.compile(r"(?<!\d)(?:\d{1,20}(?:\s*,\s*|\s+)){6,}\d")
UNCERTAIN = re.compile(
    r"\b(?:possible|candidates?|options|guess(?:es)?|any of|one of|between|either|or|maybe|perhaps|could be|might be|possibly|more than|less than|at least|at most)\b",
    re.IGNORECASE,
)
FILLERS = {"the", "and", "that", "are", "told", "has", "have", "was", "were", "know", "given"}
OPERATOR_BEFORE = re.compile(
    r"(?:[+*/^]|\*\*|(?<=\d)\s*-|(?<=\s)x|\btimes|\bplus|\bminus|divided by)\s*\(?$", re.IGNORECASE
)
OPERATOR_AFTER = re.compile(
    r"^\s*\)?\s*(?:[+*/^!]|\*\*|-\s*\d|x\s*\d|\btimes|\bplus|\bminus|divided by|percent of|% of)", re.IGNORECASE
)


def committed_number(text: str, prompt: str = "") -> str | None:
    """The number as it is written, in ASCII digits; None where the text commits to none.

    >>> committed_number("So he has 9 cards, not 8."), committed_number("There are 40-50 people."), committed_number("5 + 3 = 8")
    ('9', None, '8')
    """
    asked, text = plain(prompt), text[-MAX_CHARACTERS:]
    sentences = [s for s in _sentences(_readable(text), asked) if not CHECKS.match(s) and not BOILERPLATE.search(s)]
    if sentences and SUPPOSES.match(sentences[-1]) and not _is_finished(sentences[-1]):
        del sentences[-1]
    committing = [s for s in sentences if GRADING.search(asked) or not GRADING.search(s)]
    for sentence in reversed(committing):
        if TAKEN_BACK.search(sentence) and not _speaks_of_numbers(sentence):
            return None
        found = _in_sentence(sentence)
        if found is not None or _speaks_of_numbers(sentence):
            return found
    return None


def _readable(text: str) -> str:
    text = re.sub(r"<[^<>]{0,200}>|```\w*|\*\*|`", " ", text)
    text = re.sub(r"\bnone other than\b", "", REFERENCE.sub(" ", text), flags=re.IGNORECASE)
    text = re.sub(r"\\(?:times|cdot)", "*", text)
    text = re.sub(r"\\frac\{(\d+)\}\{(\d+)\}", r"\1/\2", text)
    text = LIST_MARK.sub(" ", plain(text))
    text = re.sub(r"[①-⑳⓪❶-❿]", " ", text)
    text = re.sub(r"(?<=[a-zA-Z])\^\{?-?\d+\}?", "", text)
    return re.sub(r"[$€£₹\\]|\{,\}", "", text.replace("{,}", ","))


def _sentences(text: str, prompt: str) -> Iterator[str]:
    """Without questions and without what the prompt says too."""
    asked = {_letters(sentence) for sentence in SENTENCE.findall(prompt) if sentence.strip()} | {_letters(prompt)}
    for sentence in SENTENCE.findall(text):
        is_told = sentence.strip() and not sentence.rstrip().endswith("?") and _letters(sentence) not in asked
        if is_told and not _restates(sentence, prompt):
            yield sentence


def _restates(sentence: str, prompt: str) -> bool:
    """Whether a sentence without a result says nothing that the prompt does not."""
    if "=" in sentence:
        return False
    words = {word for word in re.findall(r"[a-z]{3,}", sentence.casefold()) if word not in FILLERS}
    known = set(re.findall(r"[a-z]{3,}", prompt.casefold()))
    numbers, given = set(re.findall(r"\d+", sentence)), set(re.findall(r"\d+", prompt))
    return len(words) >= 3 and numbers <= given and len(words - known) <= len(words) // 5


def _letters(text: str) -> str:
    return re.sub(r"\W", "", text).casefold()


def _speaks_of_numbers(sentence: str) -> bool:
    return CANDIDATE.search(sentence) is not None


def _is_finished(sentence: str) -> bool:
    return sentence.rstrip()[-1:] in ".!;" or sentence.endswith("\n")


def _in_sentence(sentence: str) -> str | None:
    """The last number of a sentence that stands as its result."""
    is_finished = _is_finished(sentence)
    matches = list(CANDIDATE.finditer(sentence))
    if not matches or ENUMERATION.search(GROUPED.sub("0", sentence)):
        return None
    if UNCERTAIN.search(sentence) and len(matches) > 1 and not re.search(r"\bnot\b|\bbut\b", sentence):
        return None
    for number, match in reversed(list(enumerate(matches))):
        before, after = (
            sentence[max(0, match.start() - NEAR) : match.start()],
            sentence[match.end() : match.end() + NEAR],
        )
        if any(sign.search(before) for sign in (DENIES, DENIED_VERB, DOUBTS)) or DENIED_AFTER.match(after):
            continue
        following = re.split(r",?\s*\b(?:not|rather than|instead of|and not)\b", after)[0]
        if not is_finished and (GOES_ON.search(following) or len(re.findall(r"[A-Za-z]+", following)) > MAX_UNIT_WORDS):
            return None
        value = match.group().strip().rstrip(",")
        is_range = re.search(r"\d\s*-\s*$", before) or re.match(r"\s*-\s*\d", after)
        if is_range or UNCERTAIN.search(sentence[matches[number - 1].end() if number else 0 : match.start()]):
            return None
        if _is_operand(before, after) or _is_division(value):
            return None
        large = LARGE.match(after)
        return value.replace(" ", "").rstrip(".") + (large.group().lower() if large else "")
    return None


def _is_division(value: str) -> bool:
    """Whether a fraction is a division that nobody did: 64 / 8."""
    top, slash, bottom = value.partition("/")
    if not slash or not top.strip().isdigit() or not bottom.strip().isdigit():
        return False
    return int(bottom) != 0 and int(top) % int(bottom) == 0


def _is_operand(before: str, after: str) -> bool:
    """Whether the number stands in a sum that has no result."""
    if OPERATOR_AFTER.match(after) and not re.match(r"^!+\s*$|^!+\s", after):
        return True
    side = before.rpartition("=")[2] if "=" in before else before
    has_operator = OPERATOR_BEFORE.search(side) is not None
    return has_operator
