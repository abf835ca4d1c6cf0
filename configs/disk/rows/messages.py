"""Reads chat messages in the forms that data sets have."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from configs.disk.rows.columns import shortened, unpacked
from configs.errors import UnreadableRow
from configs.records import Message

ROLES = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "input": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "ai": "assistant",
    "bard": "assistant",
    "bing": "assistant",
    "output": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "function_response": "tool",
    "ipython": "tool",
}
"""{name of a role in a data set: the role}"""
TEXT_PARTS = ("text", "input_text", "output_text")
"""types of a content part that hold text"""
WRITTEN = re.compile(r"""\s*\[\s*\{\s*['"](?:role|from)['"]\s*:""")
"""how a text begins that holds a conversation, as JSON or as Python writes it"""


def as_messages(value: Any, place: str) -> list[Message] | None:
    """Chat messages reduced to role and content; None if the value is no list of chat messages.

    They may be messages (role, content), turns of ShareGPT (from, value), a text that holds these as JSON or as Python's
    literal, or a list of texts of which a user wrote every other. JSON of texts alone is a text, as a question about a list is. A content in parts is joined.

    What has no content at the end is left out, unless a user is to say it: there an answer would stand.

    Raises:
        UnreadableRow: a message has a role that is not known, or a part that is no text; or a text begins as a conversation
            and cannot be read as one.
    """
    if isinstance(value, str):
        value = _written(value, place)
    value = value.tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(value, list) or not value:
        return None
    if all(isinstance(text, str) and text.strip() for text in value):
        return [{"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(value)]
    said = next((i for i in range(len(value), 0, -1) if not _is_unsaid(value[i - 1])), 0)
    messages = [_message(item, place) for item in value[:said]]
    return None if not messages or None in messages else [message for message in messages if message is not None]


def asked_messages(value: Any, place: str) -> tuple[list[Message], bool] | None:
    """The chat messages up to the last one of a user, and whether something was said after it; None if the value is no list
    of chat messages. What was said after it (an answer, calls of tools) is not read.

    Without a message of a user they are all the messages.

    Raises:
        UnreadableRow: as in `as_messages`.
    """
    if isinstance(value, str):
        value = _written(value, place)
    value = value.tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        messages = as_messages(value, place)
        asked = 0 if messages is None else len(messages) - (messages[-1]["role"] == "assistant")
        return None if messages is None else (messages[:asked], asked < len(messages))
    asked = next((i for i in range(len(value), 0, -1) if _is_of_user(value[i - 1])), len(value))
    messages = as_messages(value[:asked], place)
    return None if messages is None else (messages, not all(map(_is_unsaid, value[asked:])))


def _written(text: str, place: str) -> list[Any] | None:
    """The conversation that a text holds; None for any other text."""
    if _are_objects(messages := unpacked(text)):
        return list(messages)
    if WRITTEN.match(text):
        raise UnreadableRow(f"{place}: {shortened(text)} begins as a conversation and is no JSON; write it as JSON")
    return None


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _is_of_user(item: dict[str, Any]) -> bool:
    return isinstance(role := _role(item), str) and ROLES.get(role.lower()) == "user"


def _is_unsaid(item: Any) -> bool:
    """Whether an item is a message of somebody else than a user, with null as its content."""
    if not isinstance(item, dict) or not isinstance(role := _role(item), str):
        return False
    return ROLES.get(role.lower()) != "user" and _raw_content(item) is None


def _role(item: dict[str, Any]) -> Any:
    return item.get("role", item.get("from"))


def _raw_content(item: dict[str, Any]) -> Any:
    return item["content"] if "content" in item else item.get("value")


def _message(item: Any, place: str) -> Message | None:
    """One message; None if the item is none."""
    if not isinstance(item, dict):
        return None
    role, content = _role(item), _content(_raw_content(item), place)
    if not isinstance(role, str) or content is None:
        return None
    if role.lower() not in ROLES:
        raise UnreadableRow(f"{place}: a message has the role {role!r}; use one of {', '.join(ROLES)}")
    return {"role": ROLES[role.lower()], "content": content}


def _content(value: Any, place: str) -> str | None:
    """The text of a message's content, whose parts are joined; None if it is no content."""
    value = value.tolist() if isinstance(value, np.ndarray) else value
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        return None
    parts = [_part(part, place) for part in value]
    return None if None in parts else "".join(part for part in parts if part is not None)


def _part(part: Any, place: str) -> str | None:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        return None
    kind = part.get("type", "text")
    if kind not in TEXT_PARTS:
        raise UnreadableRow(
            f"{place}: a message has a part of type {kind!r}; Regroup reads text alone, leave such rows out"
        )
    return part["text"] if isinstance(part.get("text"), str) else None
