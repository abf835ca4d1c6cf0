"""The answer that a text commits to in the end: its last one, unless it is denied, withdrawn, a placeholder, or one of several.

`extract` says where it must stand: in a tag, a box, after ####, after a phrase such as "the answer is", in a JSON field, in the last
number, or (`final`) in whatever of these is there, the last number at the end. What is reasoned in <think> counts for nothing.

A place that stands more than once with different contents counts by its last one only where words stand between: "... <answer>9</answer>
Wait, I counted one twice: <answer>8</answer>" is a correction, <answer>8</answer><answer>9</answer> is fishing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from reward_training.answers.committed_number import DENIED_AFTER, committed_number
from reward_training.answers.plain_text import visible
from reward_training.answers.quantity import quantity

PLACEHOLDER = re.compile(
    r"[\s.…?_\-–]*|<[^<>]+>\.?|\\?text\{[^}]*answer[^}]*\}|(?:your |the |final |my )*(?:answer|result|number|value)(?: here| goes here)?|x{3,}|(?-i:N/A|NA|n/?a)|null",
    re.IGNORECASE,
)
WITHDRAWN = re.compile(
    r"\b(?:wait|oops|scratch that|i (?:was|am) wrong|(?:that|this|it)(?:'s| is| was) (?:wrong|incorrect|not right|a mistake)|i (?:made|slipped)|"
    r"(?:actually|hmm|no),? (?:no|it|that)|it (?:must|should) be|correction|instead it is|not correct)\b",
    re.IGNORECASE,
)
OTHERS_WORDS = re.compile(
    r"<(grader|judge|marker|examiner|evaluator|reviewer|teacher|verifier|system|user|human|verdict|grading|evaluation)>.*?(?:</\1>|$)",
    re.IGNORECASE | re.DOTALL,
)
SAID_TO_BE_FALSE = re.compile(
    r"\b(?:false|untrue|not true|wrong|incorrect|not the case)\s+(?:that|to (?:say|claim|think|believe)(?: that)?)\b[^.!?,;:\n]*$",
    re.IGNORECASE,
)
DOUBTED = re.compile(
    r"(?:\b|(?=n['\u2019]t))(?:no way|doubt|not true|wrong that|n['\u2019]t (?:think|believe|say|know)|not (?:think|believe|sure)|cannot|can't|deny|never|unless|whether|if|suppose|"
    r"hope|pretend|claims?|assume|want me to|end with|say(?:ing)?|write)\b[^.!?\n]*$",
    re.IGNORECASE,
)
MAX_SHORT = 400
"""characters up to which a content is read as a short answer"""
MAX_PLACES = 64
"""the last ones that are looked at"""
NEAR, MAX_CONTENT = 200, 1000
"""characters before a phrase and after it"""
PHRASE = re.compile(
    r"\b(?:the\s+)?(?:final\s+|correct\s+|right\s+)?answer(?:\s+to\s+[^.\n:]{1,40})?\s*(?:\*\*)?\s*(?:(?:is|was|=|would be|must be|comes to|should be|will be)\s*:?|(?:\*\*)?:)\s*"
    r"|\banswer\s*(?=isn't|is not)|\b(?:final|my)\s+answer\s*[:\-]?\s+(?=\S)",
    re.IGNORECASE,
)
SENTENCE_END = re.compile(r"\n|[.!?]+(?=\s|$)|;")
BECAUSE = re.compile(
    r",?\s*\b(?:because|since|as|so that|which|where|for the reason)\b.*$|\s+[-–—]\s+.*$", re.IGNORECASE | re.DOTALL
)


@dataclass(frozen=True)
class Place:
    """A content that stands in a place meant for answers."""

    kind: str
    start: int
    end: int
    content: str


def final_answer(
    text: str, extract: str, *, tag: str = "answer", field: str = "answer", prompt: str = "", letters: bool = False
) -> str | None:
    """The content of the place that `extract` names, stripped; None where the text commits to nothing there.

    With `letters`, `final` takes a letter that the text commits to where there is no such place, before it looks for a number.
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
    """What stands after the reasoning in <think>, without what is put into others' mouths; nothing where reasoning has no end."""
    text = re.sub(r"<think>.*?</think>", "", text, flags=re.DOTALL | re.IGNORECASE)
    text = OTHERS_WORDS.sub("", text)
    return re.split(r"<think>", text, maxsplit=1, flags=re.IGNORECASE)[0]


# ---- places ---------------------------------------------------------------------------------------------------------


def _tags(text: str, tag: str, field: str) -> Iterator[Place]:
    name = re.escape(tag)
    for match in re.finditer(rf"<{name}>([^<]*)<{name}>[^<]*</{name}>[^<]*</{name}>", text):
        yield Place("tag", match.start(), match.start(), match.group(1))  # around another one
    for match in re.finditer(rf"<{name}>((?:(?!<{name}>).)*?)</{name}>", text, re.DOTALL):
        yield Place("tag", match.start(), match.end(), match.group(1))


def _boxes(text: str, tag: str, field: str) -> Iterator[Place]:
    for match in list(re.finditer(r"\\(?:boxed|fbox)\s*\{", text))[-MAX_PLACES:]:
        depth, place = 1, match.end()
        while place < len(text) and depth:
            depth += {"{": 1, "}": -1}.get(text[place], 0) if text[place - 1] != "\\" else 0
            place += 1
        if not depth:
            content = re.sub(r"\\[hv]?phantom\s*\{[^{}]*\}", "", text[match.end() : place - 1])
            if not re.fullmatch(
                r"\s*\\(?:boxed|fbox)\s*\{.*\}\s*", content, re.DOTALL
            ):  # a box around a box alone is one
                yield Place("boxed", match.start(), place, content)


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
        before = text[max(start_of_sentence, match.start() - NEAR) : match.start()]
        if (
            DOUBTED.search(before)
            or before.count('"') % 2
            or before.rstrip()[-1:] in ("'", "\u2018", "\u201c", "\u00ab")
        ):
            continue
        rest = text[match.end() : match.end() + MAX_CONTENT]
        if not rest.strip() or rest.startswith("\n"):
            continue
        end = SENTENCE_END.search(rest)
        content, mark, after = (rest, "", "") if end is None else (rest[: end.start()], end.group(), rest[end.end() :])
        if mark.startswith("?"):
            continue
        content = BECAUSE.sub("", content) + (
            "!" if mark == "!" and not after.strip() else ""
        )  # a factorial, it may be
        yield Place("answer_is", match.start(), match.end() + len(content), content)


def _objects(text: str, tag: str, field: str) -> Iterator[Place]:
    decoder = json.JSONDecoder(object_pairs_hook=_once)
    place = text.find("{")
    while place >= 0:
        try:
            value, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            place = text.find("{", place + 1)
            continue
        if isinstance(value, dict) and field in value:
            yield Place("json", place, end, _json_text(value[field]))
        place = text.find("{", end)


class _Twice:
    """Stands for a key that an object has twice with different values."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        found[key] = _Twice() if key in found and found[key] != value else value
    return found


def _json_text(value: Any) -> str:
    """A string as it is, a number or a list as JSON; nothing for what is no answer."""
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


# ---- which of them counts -------------------------------------------------------------------------------------------


def _final(text: str, tag: str, field: str, prompt: str, *, letters: bool) -> str | None:
    places = [place for find in FINDERS.values() for place in find(text, tag, field)]
    answer = _last(text, _innermost(places))
    if answer is not None:
        return answer
    ends = [place.end for place in places if not _is_placeholder(place.content)]
    rest = text[max(ends, default=0) :]
    if ends and not WITHDRAWN.search(rest):
        return None  # fishing, or a denied answer
    return (committed_letter(rest) if letters else None) or committed_number(rest, prompt)


LETTER = r"[(\[*]{0,3}([A-H])[)\]*]{0,3}"
LETTER_ALONE = re.compile(rf"(?:^|[.:\n])\s*{LETTER}\s*(?=[.\n]|$)")
LETTER_NAMED = re.compile(
    rf"(?<!not )(?<!n't )\b(?:[Oo]ption|[Cc]hoice|[Aa]nswer|[Ll]etter|[Cc]hoose|[Cc]hose|[Pp]ick|[Ss]elect|[Gg]o with)(?:\s+is)?\s*:?\s*{LETTER}(?![\w'])"
)


def committed_letter(text: str) -> str | None:
    """The one choice that a text names as its answer, alone in a sentence or as an option; None where it names several.

    >>> committed_letter("Plants take it in (option B). So: B."), committed_letter("Option A or option B.")
    ('B', None)
    """
    found = {
        match.group(1) for pattern in (LETTER_ALONE, LETTER_NAMED) for match in pattern.finditer(text[-MAX_CONTENT:])
    }
    return found.pop() if len(found) == 1 else None


def _innermost(places: list[Place]) -> list[Place]:
    """Of marked places within each other the inner ones; a phrase that holds a marked place, or stands in one, is not counted."""
    marked = [place for place in places if place.kind != "answer_is"]
    phrases = [
        p for p in places if p.kind == "answer_is" and not any(p.start < m.end and m.start < p.end for m in marked)
    ]
    return phrases + [
        m for m in marked if not any(o is not m and m.start <= o.start and o.end <= m.end for o in marked)
    ]


def _last(text: str, places: list[Place]) -> str | None:
    """The content of the last place that is no placeholder, where it may count."""
    real = [
        place
        for place in sorted(places, key=lambda p: p.start)
        if not _is_placeholder(place.content)
        and not SAID_TO_BE_FALSE.search(text[max(place.start - NEAR, 0) : place.start])
    ]
    if not real:
        return None
    last = real[-1]
    if last.kind != "answer_is" and DENIED_AFTER.match(text[last.end : last.end + NEAR].lstrip("$*`)}]. ")):
        return None
    for before, after in pairwise(real):
        rest = SENTENCE_END.split(text[after.end : after.end + NEAR], maxsplit=1)[0]
        if not _is_same(before.content, after.content) and not _is_replaced(text[before.end : after.start], rest):
            return None
    if len(real) > 1 and not _is_same(real[-2].content, last.content) and UNDECIDED.search(text[last.end :]):
        return None
    if WITHDRAWN.search(text[last.end :]):
        return None
    return _committed(last.content.strip())


def _is_placeholder(content: str) -> bool:
    return PLACEHOLDER.fullmatch(content.strip()) is not None and content.strip() not in ("-", "x")


def _is_same(one: str, other: str) -> bool:
    """Whether two contents say the same, as text or as numbers."""
    if _folded(one) == _folded(other):
        return True
    values = quantity(one), quantity(other)
    return values[0] is not None and values[0] == values[1]


def _folded(content: str) -> str:
    bare = re.sub(r"\\(?:text|mathrm|mathbf|textbf|mbox)\s*\{([^{}]*)\}", r"\1", content)
    return re.sub(r"[\s*$`]", "", bare).casefold()


RESTATED = re.compile(r"\b(?:that is|i\.e\.|equivalently|in other words|equals?|the same as)\b|=", re.IGNORECASE)
UNDECIDED = re.compile(r"\b(?:either|both|whichever|not sure|can't decide|cannot decide)\b", re.IGNORECASE)
ALTERNATIVE = re.compile(r"\b(?:or|another|others?|alternatively|also|either|else)\b", re.IGNORECASE)


def _is_replaced(between: str, rest: str) -> bool:
    """Whether what stands between two answers makes the second take the first one's place: two words, or one that corrects.
    `rest` ends the second one's sentence."""
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
    """The part of a short answer that is no denial: `Paris, not Lyon` is Paris, `not A, so B` is B, `not 44` is nothing."""
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
