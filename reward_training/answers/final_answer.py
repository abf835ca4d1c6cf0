"""Finds the answer that a text commits to: its last one, unless denied, withdrawn, a placeholder, or one of several.

`extract` says where the answer must be: in a tag, in a box, after ####, after a phrase such as "the answer is", in a
JSON field, as the last number, or (`final`) in whichever of these places the text has, the last number being tried
last. Thoughts, such as those in <think>, do not count.

If a text has several places with different contents, the last one counts only if words stand between them:
"... <answer>9</answer> Wait, I counted one twice: <answer>8</answer>" is a correction, but
<answer>8</answer><answer>9</answer> is fishing for the right one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from reward_training.answers import markup
from reward_training.answers.committed_number import committed_number
from reward_training.answers.denials import DENIED_AFTER, DOUBTED, NEAR, SAID_TO_BE_FALSE, WITHDRAWN
from reward_training.answers.plain_text import visible
from reward_training.answers.quantity import quantity
from reward_training.answers.thoughts import answer_of

PLACEHOLDER = re.compile(
    r"[\s.…?_\-–]*|<[^<>]+>\.?|\\?text\{[^}]*answer[^}]*\}|(?:your |the |final |my )*(?:answer|result|number|value)(?: here| goes here)?|x{3,}|(?-i:N/A|NA|n/?a)|null",
    re.IGNORECASE,
)
OTHERS_WORDS = re.compile(
    r"<(grader|judge|marker|examiner|evaluator|reviewer|teacher|verifier|system|user|human|verdict|grading|evaluation)>.*?(?:</\1>|$)",
    re.IGNORECASE | re.DOTALL,
)
MAX_SHORT = 400
"""characters of a short answer; denials are not looked for in longer contents"""
MAX_PLACES = 64
"""boxes or phrases in one text that are looked at, counted from its end"""
MAX_CONTENT = 1000
"""number of characters after a phrase that are searched for the end of its sentence"""
PHRASE = re.compile(
    r"\b(?:the\s+)?(?:final\s+|correct\s+|right\s+)?answer(?:\s+to\s+[^.\n:]{1,40})?\s*(?:\*\*)?\s*(?:(?:is|was|=|would be|must be|comes to|should be|will be)\s*:?|(?:\*\*)?:)\s*"
    r"|\banswer\s*(?=isn't|is not)|\b(?:final|my)\s+answer\s*[:\-]?\s+(?=\S)",
    re.IGNORECASE,
)
BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
BOX_ALONE = re.compile(r"\s*\\(?:boxed|fbox)\s*\{.*\}\s*", re.DOTALL)
"""a content that is a box, and nothing else"""
SENTENCE_END = re.compile(r"\n|[.!?]+(?=\s|$)|;")
BECAUSE = re.compile(
    r",?\s*\b(?:because|since|as|so that|which|where|for the reason)\b.*$|\s+[-–—]\s+.*$", re.IGNORECASE | re.DOTALL
)


@dataclass(frozen=True)
class Place:
    """A place meant for answers, and its content. `start` and `end` are offsets in the text."""

    kind: str
    start: int
    end: int
    content: str


def final_answer(
    text: str, extract: str, *, tag: str = "answer", field: str = "answer", prompt: str = "", letters: bool = False
) -> str | None:
    """The answer in the place that `extract` names, stripped; None where the text commits to nothing there.

    With `letters`, `final` looks for a letter in texts without such a place, before it looks for a number.
    """
    text = without_thoughts(visible(text))
    if extract == "whole":
        return _committed(text.strip())
    if extract == "last_number":
        return committed_number(text, prompt)
    if extract == "final":
        return _final(text, tag, field, prompt, letters=letters)
    return _last(text, list(FINDERS[extract](text, tag, field)))


def without_thoughts(text: str) -> str:
    """The text without thoughts and words attributed to a grader or user."""
    return OTHERS_WORDS.sub("", answer_of(text))


# ---- places ---------------------------------------------------------------------------------------------------------


def _tags(text: str, tag: str, field: str) -> Iterator[Place]:
    name = re.escape(tag)
    for match in re.finditer(rf"<{name}>([^<]*)<{name}>[^<]*</{name}>[^<]*</{name}>", text):
        yield Place("tag", match.start(), match.start(), match.group(1))  # it is around another one
    for match in re.finditer(rf"<{name}>((?:(?!<{name}>).)*?)</{name}>", text, re.DOTALL):
        yield Place("tag", match.start(), match.end(), match.group(1))


def _boxes(text: str, tag: str, field: str) -> Iterator[Place]:
    for match in list(BOX.finditer(text))[-MAX_PLACES:]:
        end = _end_of_group(text, match.end())
        if end is None:
            continue
        content = markup.without_phantoms(text[match.end() : end - 1])
        if not BOX_ALONE.fullmatch(content):  # the box inside is a place of its own
            yield Place("boxed", match.start(), end, content)


def _end_of_group(text: str, start: int) -> int | None:
    r"""The offset after the } that closes the group at `start`; None if nothing closes it. \{ and \} do not count."""
    depth = 1
    for index in range(start, len(text)):
        if text[index - 1] != "\\":
            depth += {"{": 1, "}": -1}.get(text[index], 0)
        if not depth:
            return index + 1
    return None


def _hashes(text: str, tag: str, field: str) -> Iterator[Place]:
    for match in re.finditer(r"(?m)(?:^|(?<=\s))####(?!#)[ \t]*([^\n]*)", text):
        if DOUBTED.search(text[max(text.rfind("\n", 0, match.start()) + 1, match.start() - NEAR) : match.start()]):
            continue  # the mark is spoken of
        if "####" in match.group(1):
            yield Place("hash", match.start(), match.end(), "")  # several on one line
        yield Place("hash", match.start(), match.end(), match.group(1))


def _phrases(text: str, tag: str, field: str) -> Iterator[Place]:
    for match in list(PHRASE.finditer(text))[-MAX_PLACES:]:
        start_of_sentence = max(text.rfind(mark, 0, match.start()) for mark in ("\n", ". ", "! ", "? ")) + 1
        if _is_only_mentioned(text[max(start_of_sentence, match.start() - NEAR) : match.start()]):
            continue
        content = _behind_phrase(text[match.end() : match.end() + MAX_CONTENT])
        if content is not None:
            yield Place("answer_is", match.start(), match.end() + len(content), content)


def _is_only_mentioned(before: str) -> bool:
    """Whether the text before a phrase doubts or quotes it."""
    is_quoted = before.count('"') % 2 or before.rstrip()[-1:] in ("'", "\u2018", "\u201c", "\u00ab")
    return bool(is_quoted or DOUBTED.search(before))


def _behind_phrase(rest: str) -> str | None:
    """The sentence after a phrase, without its reason; None if there is none or it is a question."""
    if not rest.strip() or rest.startswith("\n"):
        return None
    end = SENTENCE_END.search(rest)
    if end is None:
        return BECAUSE.sub("", rest)
    if end.group().startswith("?"):
        return None
    may_be_factorial = end.group() == "!" and not rest[end.end() :].strip()
    return BECAUSE.sub("", rest[: end.start()]) + ("!" if may_be_factorial else "")


def _objects(text: str, tag: str, field: str) -> Iterator[Place]:
    decoder = json.JSONDecoder(object_pairs_hook=_once)
    start = text.find("{")
    while start >= 0:
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            start = text.find("{", start + 1)
            continue
        if isinstance(value, dict) and field in value:
            yield Place("json", start, end, _json_text(value[field]))
        start = text.find("{", end)


class _Twice:
    """The value of a key that an object has twice with different values."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        found[key] = _Twice() if key in found and found[key] != value else value
    return found


def _json_text(value: Any) -> str:
    """A string as it is, a number or a list as JSON; empty for null, booleans, objects and keys that stand twice."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or value is None or isinstance(value, dict | _Twice):
        return ""
    return json.dumps(value, ensure_ascii=False)


FINDERS: dict[str, Callable[[str, str, str], Iterator[Place]]] = {
    "tag": _tags,
    "boxed": _boxes,
    "hash": _hashes,
    "answer_is": _phrases,
    "json": _objects,
}


# ---- choosing one place ---------------------------------------------------------------------------------------------


def _final(text: str, tag: str, field: str, prompt: str, *, letters: bool) -> str | None:
    places = [place for find in FINDERS.values() for place in find(text, tag, field)]
    answer = _last(text, _innermost(places))
    if answer is not None:
        return answer
    ends = [place.end for place in places if not _is_placeholder(place.content)]
    rest = text[max(ends, default=0) :]
    if ends and not WITHDRAWN.search(rest):
        return None  # several answers without a correction, or a denied one
    return (committed_letter(rest) if letters else None) or committed_number(rest, prompt)


LETTER = r"[(\[*]{0,3}([A-H])[)\]*]{0,3}"
LETTER_ALONE = re.compile(rf"(?:^|[.:\n])\s*{LETTER}\s*(?=[.\n]|$)")
LETTER_NAMED = re.compile(
    rf"(?<!not )(?<!n't )\b(?:[Oo]ption|[Cc]hoice|[Aa]nswer|[Ll]etter|[Cc]hoose|[Cc]hose|[Pp]ick|[Ss]elect|[Gg]o with)(?:\s+is)?\s*:?\s*{LETTER}(?![\w'])"
)


def committed_letter(text: str) -> str | None:
    """The one choice that a text names, alone in a sentence or as an option; None where it names none or several.

    >>> committed_letter("Plants take it in (option B). So: B."), committed_letter("Option A or option B.")
    ('B', None)
    """
    found = {
        match.group(1) for pattern in (LETTER_ALONE, LETTER_NAMED) for match in pattern.finditer(text[-MAX_CONTENT:])
    }
    return found.pop() if len(found) == 1 else None


def _innermost(places: list[Place]) -> list[Place]:
    """The marked places that hold no other one, and the phrases that overlap with no marked place."""
    marked = [place for place in places if place.kind != "answer_is"]
    phrases = [
        p for p in places if p.kind == "answer_is" and not any(p.start < m.end and m.start < p.end for m in marked)
    ]
    return phrases + [
        m for m in marked if not any(o is not m and m.start <= o.start and o.end <= m.end for o in marked)
    ]


def _last(text: str, places: list[Place]) -> str | None:
    """The answer in the last place that is no placeholder; None if it is denied, withdrawn or contradicted."""
    real = [place for place in sorted(places, key=lambda p: p.start) if _may_count(text, place)]
    if not real:
        return None
    last, rest = real[-1], text[real[-1].end :]
    if last.kind != "answer_is" and DENIED_AFTER.match(rest[:NEAR].lstrip("$*`)}]. ")):
        return None
    if any(_contradicts(text, before, after) for before, after in pairwise(real)) or WITHDRAWN.search(rest):
        return None
    if len(real) > 1 and not _is_same(real[-2].content, last.content) and UNDECIDED.search(rest):
        return None
    return _committed(last.content.strip())


def _may_count(text: str, place: Place) -> bool:
    """Whether a place has an answer in it that the text before does not call false."""
    before = text[max(place.start - NEAR, 0) : place.start]
    return not _is_placeholder(place.content) and not SAID_TO_BE_FALSE.search(before)


def _contradicts(text: str, before: Place, after: Place) -> bool:
    """Whether a place says something else than the one before it, and does not replace it."""
    rest_of_sentence = SENTENCE_END.split(text[after.end : after.end + NEAR], maxsplit=1)[0]
    is_replaced = _is_replaced(text[before.end : after.start], rest_of_sentence)
    return not is_replaced and not _is_same(before.content, after.content)


def _is_placeholder(content: str) -> bool:
    return PLACEHOLDER.fullmatch(content.strip()) is not None and content.strip() not in ("-", "x")


def _is_same(one: str, other: str) -> bool:
    """Whether two contents say the same, as text or as numbers."""
    if _folded(one) == _folded(other):
        return True
    values = quantity(one), quantity(other)
    return values[0] is not None and values[0] == values[1]


def _folded(content: str) -> str:
    """The content in one case, without white space, LaTeX's wrappers and marks of emphasis and formulas."""
    return re.sub(r"[\s*$`]", "", markup.unwrapped(content)).casefold()


RESTATED = re.compile(r"\b(?:that is|i\.e\.|equivalently|in other words|equals?|the same as)\b|=", re.IGNORECASE)
UNDECIDED = re.compile(r"\b(?:either|both|whichever|not sure|can't decide|cannot decide)\b", re.IGNORECASE)
ALTERNATIVE = re.compile(r"\b(?:or|another|others?|alternatively|also|either|else)\b", re.IGNORECASE)


def _is_replaced(between: str, rest: str) -> bool:
    """Whether the text between two answers makes the second one replace the first.

    It does if the text has two words, or one that corrects. `rest` is the end of the second answer's sentence.
    """
    if (
        WITHDRAWN.search(between)
        or RESTATED.search(between)
        or re.search(r"(?i)\b(?:no|so|then|thus|hence)\b", between)
    ):
        return True
    if ALTERNATIVE.search(f"{between} {rest}") and not SENTENCE_END.search(between):
        return False
    words = [word for word in re.findall(r"[A-Za-z]+", between) if word.lower() not in ("answer", "boxed", "json")]
    return len(words) >= 2


DENIAL = re.compile(r"^(?:not|isn't|is not|never|n't|neither)\b\s*", re.IGNORECASE)
EXCLUSION = re.compile(r"^(?:anything|everything|all|any\w*)\s+(?:but|except)\b", re.IGNORECASE)
ASIDE_DENIAL = re.compile(r"\s*\(\s*(?:and not|not|rather than|instead of)\b[^()]*\)", re.IGNORECASE)
TRAILING_DENIAL = re.compile(
    r",?\s*\b(?:and not|not|rather than|instead of|as opposed to)\b(?!\s+sure)[^,;()]*$", re.IGNORECASE
)
ASSURANCE = re.compile(
    r",?\s*(?:(?:no|without(?: a)?) doubt|of course|certainly|indeed|obviously|for sure|i am sure|definitely|exactly)\s*$",
    re.IGNORECASE,
)
CORRECTION = re.compile(r"\.{2,}\s*no,? wait,?\s*|\bno,? wait,?\s*|\bscratch that[,;:]?\s*", re.IGNORECASE)
TURN = re.compile(r"[,;:]?\s*\b(?:but|so|it's|it is|hence|therefore)\b\s*(?:it's|it is)?\s*", re.IGNORECASE)


def _committed(content: str) -> str | None:
    """What a short answer does not deny: `Paris` of `Paris, not Lyon`, `B` of `not A, so B`; None if all is denied."""
    content = re.sub(r"^none other than\s+", "", content.strip(), flags=re.IGNORECASE)
    if "\n" in content or len(content) > MAX_SHORT:
        return content or None
    if EXCLUSION.match(content):
        return None
    content = ASSURANCE.sub("", CORRECTION.split(content)[-1])
    if DENIAL.match(content):
        turn = TURN.search(content)
        return content[turn.end() :].strip() or None if turn else None
    return TRAILING_DENIAL.sub("", ASIDE_DENIAL.sub("", content)).strip() or None
