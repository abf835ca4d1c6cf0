"""What a judge's endpoint sent back: the text of the reply, and the verdict in it.

An endpoint may send a reply that was cut off, a refusal, a call of a tool, thoughts, or parts instead of a text. Only a reply
that ended by itself has a verdict, and only what stands after the thoughts. The verdict is the last JSON object in it that
has the field at its top level: what is nested in another object or list is an example, or a part of the grade.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reward_training.answers.finding.thoughts import MARKS, answer_of
from reward_training.reward import Unscored, Value

CUT_OFF = Unscored("cut off")
NOT_ENDED = {
    **dict.fromkeys(("length", "max_tokens", "model_length", "model_context_window_exceeded", "incomplete"), CUT_OFF),
    **dict.fromkeys(("content_filter", "safety", "sensitive", "refusal"), Unscored("refused")),
    **dict.fromkeys(("tool_calls", "function_call", "tool_use"), Unscored("called a tool")),
    **dict.fromkeys(("abort", "aborted", "cancelled", "error", "network_error"), Unscored("broken off")),
}
"""why a reply with this `finish_reason`, of one endpoint or another, has no verdict; others say that it ended by itself"""
TEXT_PARTS = ("text", "output_text")
"""types of the parts of a message that are its text; others are thoughts, pictures, ..."""
NO_VERDICT = Unscored("no verdict")
TWICE = Unscored("two verdicts in one")
CHOICES = ("A", "B", "tie")

NUMBER = re.compile(r"\s*-?\d+(?:\.\d+)?\s*", re.ASCII)
OBJECT = re.compile(r"\{|\[(?=\s*[\[{])")
"""where an object may begin, or a list of objects"""
ESCAPE = re.compile(r'\\(\\|["/bfnrt]|u[0-9a-fA-F]{4})?')


def text_of(answer: Any) -> str | Unscored:
    """The text of a chat completion, as parsed JSON, without thoughts; Unscored where it is no whole reply."""
    if not isinstance(answer, Mapping):
        return Unscored("no chat completion")
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, Mapping) else None
    if not isinstance(choice, Mapping) or not isinstance(message, Mapping):
        return Unscored("empty reply")
    if (why := NOT_ENDED.get(str(choice.get("finish_reason")).lower())) is not None:
        return why
    text = _joined(message.get("content"))
    if message.get("refusal") or text is None:
        return Unscored("refused")
    if not text.strip():
        return Unscored("called a tool" if message.get("tool_calls") else "empty reply")
    return after_thoughts(text)


def _joined(content: Any) -> str | None:
    """The text of a message's content, which may be a list of parts; None if one of them is a refusal."""
    if not isinstance(content, Sequence) or isinstance(content, str):
        return content if isinstance(content, str) else ""
    parts = [{"type": "text", "text": part} if isinstance(part, str) else part for part in content]
    parts = [part for part in parts if isinstance(part, Mapping)]
    if any(part.get("type") == "refusal" for part in parts):
        return None
    texts = (part.get("text") for part in parts if part.get("type") in TEXT_PARTS)
    return "".join(text for text in texts if isinstance(text, str))


def after_thoughts(text: str) -> str | Unscored:
    """What follows the thoughts; Unscored if the reply ends in them. An opening mark in quotes is one that is spoken of."""
    for marks in MARKS:
        text = re.sub(f"(?<=[`'\"\u201c\u2018])(?:{marks.opening.pattern})", "", text, flags=marks.opening.flags)
    if answer := answer_of(text):
        return answer
    return CUT_OFF if text.strip() else Unscored("empty reply")


def grade(text: str, max_score: int) -> Value:
    """The grade as a share of `max_score`: `{"score": n}`, or the number as a text."""
    score = _field(text, "score")
    if isinstance(score, Unscored):
        return score
    if isinstance(score, str) and NUMBER.fullmatch(score):
        score = float(score)
    if isinstance(score, bool) or not isinstance(score, int | float):
        return NO_VERDICT
    return score / max_score if 0 <= score <= max_score else Unscored("verdict out of range")


def preference(text: str) -> str | Unscored:
    """Which of two responses is better: A, B or tie."""
    better = _field(text, "better")
    if isinstance(better, Unscored):
        return better
    return better if isinstance(better, str) and better in CHOICES else NO_VERDICT


def _field(text: str, name: str) -> Any:
    """The value of the field in the last top-level object that has it; Unscored if none has."""
    found = [obj[name] for obj in top_level_objects(text) if name in obj]
    return found[-1] if found else NO_VERDICT


def top_level_objects(text: str) -> Iterator[dict[str, Any]]:
    r"""The JSON objects of a text that are in no other object or list. One that does not end makes the rest part of it.

    A backslash that escapes nothing, as of formulas, is taken for itself.

    >>> list(top_level_objects('So {"parts": {"score": 1}, "score": 2}, not [{"score": 3}].'))
    [{'parts': {'score': 1}, 'score': 2}]
    """
    text = ESCAPE.sub(lambda match: match.group() if match.group(1) else r"\\", text)
    place = 0
    while (opening := OBJECT.search(text, place)) is not None:
        start = opening.start()
        try:
            value, place = DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            if (end := _closed(text, start)) is None:
                return
            value, place = _flat(text[start:end]), end
        if isinstance(value, dict):
            yield value


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object; a field that stands in it twice with two values is TWICE."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        found[name] = TWICE if name in found and found[name] != value else value
    return found


DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=lambda name: None, strict=False)


def _closed(text: str, start: int) -> int | None:
    """The end of what is bracketed from `start` on, whatever stands in it; None if it is not closed."""
    depth = 0
    for match in re.compile(r"[\[{]|[\]}]").finditer(text, start):
        depth += 1 if match.group() in "[{" else -1
        if depth == 0:
            return match.end()
    return None


def _flat(text: str) -> dict[str, Any]:
    """The score and the choice of an object that is no JSON, mostly for quotes in its text, and has each once."""
    if re.search(r"[\[{]", text[1:]):
        return {}
    found = re.findall(r'"(score|better)"\s*:\s*("?)([-\w.]+)\2\s*(?=[,}])', text)
    return (
        {name: value for name, _, value in found}
        if len(found) == text.count('"score"') + text.count('"better"') == 1
        else {}
    )
