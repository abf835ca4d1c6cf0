"""The places of a text that are meant for answers: tags, boxes, lines after ####, phrases, and fields of JSON objects."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from reward_training.answers import markup
from reward_training.answers.finding.denials import DOUBTED, NEAR
from reward_training.answers.values.equality import is_equal
from reward_training.answers.values.reading import read

MAX_PLACES = 64
"""places of one kind that are looked at, counted from the end of the text"""
MAX_CONTENT = 1000
"""number of characters after a phrase that are searched for the end of its sentence"""
PHRASE = re.compile(
    r"\b(?:the\s+)?(?:final\s+|correct\s+|right\s+)?answer(?:\s+to\s+[^.\n:]{1,40}(?=\s(?:is|was)\b))?\s*(?:\*\*)?\s*(?:(?:is|was|=|would be|must be|comes to|should be|will be)\b\s*:?|(?:\*\*)?:)"
    r"|(?m:^)[#* \t]*(?:the\s+)?(?:final\s+)?answer[ \t]*(?:\*\*)?[ \t]*\n"
    r"|\u7b54\u6848\s*(?:\u662f|\u4e3a|[:\uff1a])|\u7b54\s*[:\uff1a]"
    r"|\banswer\s*(?=isn't|is not)|\b(?:final|my)\s+answer\s*[:\-]?\s+(?=\S)",
    re.IGNORECASE,
)
BEFORE_CONTENT = re.compile(r"[\s*,]*(?:```\w*\n)?")
"""white space and marks of emphasis between a phrase and what it introduces"""
DISPLAYED = re.compile(r"\$\$.+?\$\$|\\\[.+?\\\]|\\\(\s*\n.+?\\\)", re.DOTALL)
REMARK = re.compile(
    r"(?:also |now |indeed |then |thus |therefore |already |always |not only )*(?:correct|right|reasonable|unique|verified|confirmed|consistent|simple|simplified|clear|obvious|in|an? (?:integer|whole|positive|negative|number|fraction)|"
    r"positive|negative|boxed|above|below|given|derived|obtained|found|as follows|shown|stated|see|rounded|expressed|written|based|supposed|expected|asked|required)\b(?![^\n.]*\d)",
    re.IGNORECASE,
)
"""what is said of an answer, and is none"""
OR_ELSE = re.compile(r"[\s.]*\bor\b", re.IGNORECASE)
BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
OPEN_BOX = re.compile(
    r"\\(?:boxed|fbox)\s*((?:[-+]?(?:\d+(?:,\d{3})*(?:\.\d+|/\d+)?|\.\d+)|\\[dtc]?frac\s*(?:\d\s*\d|\{[^{}]*\}\s*\{[^{}]*\})|\\sqrt\s*(?:\d|\{[^{}]*\})"
    r"|\\(?:pi|infty)(?![A-Za-z])|\\text\s*\{[^{}]*\}|(?!a)[A-Za-z](?![A-Za-z]))+)(?![\d^!])(?!\s*(?:or\b|and\b|,\s*-?\d|[-+*/=]\s*\d|\\times|\\cdot))"
)
"""a box without braces: \\boxed 7"""
BOX_ALONE = re.compile(r"\s*\\(?:boxed|fbox)\s*\{.*\}\s*", re.DOTALL)
"""a content that is a box, and nothing else"""
SENTENCE_END = re.compile(
    r"\$[^$\n]*\$|\\\(.*?\\\)|(?P<end>\n|(?<!\\)[.!?]+(?=\s|$|\*\*)|;|[\u3002\uff01\uff1f\uff1b])"
)
"""ends of sentences, group `end`, and the inline formulas, in which none counts"""
BECAUSE = re.compile(
    r",?\s*\b(?:because|since|as|so that|which|where|for the reason)\b.*$|\s+(?:[–—]|-(?=\s+[A-Za-z]{2}))\s+.*$",
    re.IGNORECASE | re.DOTALL,
)


PLACEHOLDER = re.compile(
    r"[\s.…?_\-–]*|<[^<>]+>\.?|\\?text\{[^}]*answer[^}]*\}|(?:your |the |final |my )*(?:answer|result|number|value)(?: here| goes here)?|x{3,}|(?-i:N/A|NA|n/?a)|null",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Place:
    """A place meant for answers, and its content. `start` and `end` are offsets in the text."""

    kind: str
    start: int
    end: int
    content: str


def _last_matches(pattern: str, text: str) -> list[re.Match[str]]:
    return list(re.finditer(pattern, text))[-MAX_PLACES:]


def _tags(text: str, tag: str, field: str) -> Iterator[Place]:
    name = re.escape(tag)
    for match in _last_matches(rf"<{name}>([^<]*)<{name}>[^<]*</{name}>[^<]*</{name}>", text):
        yield Place("tag", match.start(), match.start(), match.group(1))  # it is around another one
    for match in _last_matches(rf"(?s)<{name}>((?:(?!<{name}>).)*?)</{name}>", text):
        yield Place("tag", match.start(), match.end(), match.group(1))


def _boxes(text: str, tag: str, field: str) -> Iterator[Place]:
    for match in list(OPEN_BOX.finditer(text))[-MAX_PLACES:]:
        yield Place("boxed", match.start(), match.end(), match.group(1).rstrip(","))
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
    for match in _last_matches(r"(?m)(?:^|(?<=\s))####(?!#)[ \t]*([^\n]*)", text):
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
        start = match.end() + len(BEFORE_CONTENT.match(text[match.end() :]).group())  # type: ignore[union-attr]
        content = _behind_phrase(text[start : start + MAX_CONTENT])
        if content is not None and not REMARK.match(content):
            yield Place("answer_is", match.start(), start + len(content), content)


def _is_only_mentioned(before: str) -> bool:
    """Whether the text before a phrase doubts or quotes it."""
    is_quoted = before.count('"') % 2 or before.rstrip()[-1:] in ("'", "\u2018", "\u201c", "\u00ab")
    return bool(is_quoted or DOUBTED.search(before))


def _behind_phrase(rest: str) -> str | None:
    """The formula or sentence after a phrase, without its reason; None if there is none or it is a question."""
    if (formula := DISPLAYED.match(rest)) is not None:
        return formula.group()
    end = next((match for match in SENTENCE_END.finditer(rest) if match.lastgroup == "end"), None)
    if end is None:
        return BECAUSE.sub("", rest) or None
    if end.group().startswith(("?", "\uff1f")):
        return None
    if OR_ELSE.match(rest, end.end()):
        return rest  # the answer is D... or A
    may_be_factorial = end.group() == "!" and not rest[end.end() :].strip()
    return (BECAUSE.sub("", rest[: end.start()]) + ("!" if may_be_factorial else "")) or None


def _objects(text: str, tag: str, field: str) -> Iterator[Place]:
    decoder = json.JSONDecoder(object_pairs_hook=_once)
    beginnings = [match.start() for match in re.finditer(r"\{", text)][-MAX_PLACES:]
    start = beginnings[0] if beginnings else -1
    while start >= 0:
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            start = text.find("{", start + 1)
            continue
        if isinstance(value, dict) and field in value:
            yield Place("json", start, end, _json_text(value[field]) or text[start:end])
        start = text.find("{", end)


class _Twice:
    """The value of a key that an object has twice with different values."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        found[key] = _Twice() if key in found and found[key] != value else value
    return found


def _json_text(value: Any) -> str:
    """A string as it is, a number or a list as JSON; empty for booleans, objects and keys that stand twice."""
    if isinstance(value, str) or value is None:
        return value or "null"
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


# ---- places beside and within each other ---------------------------------------------------------------------------


def innermost(places: list[Place]) -> list[Place]:
    """The marked places that hold no other one, and the phrases that overlap with no marked place."""
    marked = [place for place in places if place.kind != "answer_is"]
    phrases = [
        p for p in places if p.kind == "answer_is" and not any(p.start < m.end and m.start < p.end for m in marked)
    ]
    return innermost_phrases(phrases) + [
        m for m in marked if not any(o is not m and m.start <= o.start and o.end <= m.end for o in marked)
    ]


def innermost_phrases(phrases: list[Place]) -> list[Place]:
    """The phrases without those that introduce another one: `Final Answer: The final answer is 6.`"""
    return [p for p in phrases if not any(p.start < other.start < p.end for other in phrases)]


JOINT = re.compile(r"(?:[\s,;.&$]|\\[()\[\]]|\\q?quad|\\text\s*\{\s*and\s*\}|\band\b)*")
"""what stands between boxes that give the parts of one answer"""


def joined(text: str, places: list[Place]) -> list[Place]:
    """The places, with one for boxes that stand side by side or have only `and` between them: they are a list."""
    found: list[Place] = []
    for place in places:
        before = found[-1] if found else None
        if before and before.kind == place.kind == "boxed" and JOINT.fullmatch(text[before.end : place.start]):
            same = is_same(before.content, place.content)
            content = place.content if same else f"{before.content}, {place.content}"
            found[-1] = Place("boxed", before.start, place.end, content)
        else:
            found.append(place)
    return found


def boxed(gold: str) -> str | None:
    """The content of the last box of a gold answer that is written as a solution; several side by side are a list."""
    if "boxed" not in gold:
        return None
    places = joined(gold, sorted(_boxes(gold, "", ""), key=lambda place: place.start))
    return places[-1].content if places else None


def is_placeholder(content: str) -> bool:
    return PLACEHOLDER.fullmatch(content.strip()) is not None and content.strip() not in ("-", "x")


def is_same(one: str, other: str) -> bool:
    """Whether two contents say the same, as text or as values."""
    return _folded(one) == _folded(other) or is_equal(read(one), read(other))


def _folded(content: str) -> str:
    """The content in one case, without white space, LaTeX's wrappers and marks of emphasis and formulas."""
    return re.sub(r"[\s*$`]", "", markup.unwrapped(content)).casefold()
