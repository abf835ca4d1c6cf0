"""Takes conversations apart: what stands before a response is its prompt, the rest is the response.

A conversation is a list of chat messages, or one text with marks before the turns, as in HH-RLHF.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from configs.disk.rows.columns import shortened, unpacked
from configs.disk.rows.lines import within_limit
from configs.disk.rows.messages import as_messages
from configs.errors import ConfigError, UnreadableRow
from configs.records import Message
from configs.schema.preferences import Turns
from reward_training.preferences.cells import LeftOut

Seen = list[tuple[str, str]]
"""messages as they are compared: role and content without white space around it"""


@dataclass(frozen=True)
class Transcripts:
    """Reads texts with turn marks; without `turns` those of HH-RLHF, in texts that begin with one."""

    turns: Turns | None

    def messages(self, text: str, *, needs_assistant: bool = True) -> list[Message] | None:
        """The turns without white space around them, neighbours with one role joined; None if the text is no transcript.

        What stands before the first mark is the user's where that mark is the assistant's, otherwise the system message.
        A last turn without text is left out: there the response follows.
        """
        text = self._with_whole_first_mark(text)
        if self.turns is None and not text.startswith(self._marks["user"]):
            return None
        marks = list(self._pattern.finditer(text))
        roles = [str(mark.lastgroup) for mark in marks]
        if not roles or ("assistant" not in roles and (needs_assistant or self.turns is None)):
            return None
        roles = ["user" if roles[0] == "assistant" else "system", *roles]
        starts, ends = [0, *(mark.end() for mark in marks)], [*(mark.start() for mark in marks), len(text)]
        said = [self.without_end(text[start:end]).strip() for start, end in zip(starts, ends, strict=True)]
        return _joined_turns([(role, content) for role, content in zip(roles, said, strict=True) if content])

    def without_end(self, text: str) -> str:
        """The text without the mark of its end, and unchanged where there is no such mark."""
        end = self.turns.end if self.turns else None
        return text.strip().removesuffix(end.strip()).strip() if end else text

    def _with_whole_first_mark(self, text: str) -> str:
        """The text with all of the white space that its first mark begins with, some of which may lack there."""
        bare = text.lstrip()
        return next(
            (mark + bare[len(mark.lstrip()) :] for mark in self._marks.values() if bare.startswith(mark.lstrip())), text
        )

    @cached_property
    def _marks(self) -> dict[str, str]:
        """{role: mark}"""
        return (self.turns or Turns()).model_dump(include={"user", "assistant", "system"}, exclude_none=True)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile("|".join(f"(?P<{role}>{re.escape(mark)})" for role, mark in self._marks.items()))


def _joined_turns(said: list[tuple[str, str]]) -> list[Message]:
    messages: list[Message] = []
    for role, content in said:
        if messages and messages[-1]["role"] == role:
            content = f"{messages.pop()['content']}\n\n{content}"
        messages.append({"role": role, "content": content})
    return messages


def prompt_of(value: Any, transcripts: Transcripts, place: str) -> list[Message]:
    """The messages of a prompt column.

    Raises:
        LeftOut: there is no prompt.
        UnreadableRow: it is neither a text nor a list of chat messages.
    """
    if value is None:
        raise LeftOut("null")
    if value == [] or (isinstance(value, str) and not value.strip()):
        raise LeftOut("empty")
    if isinstance(value, str):
        messages = _in_json(value, place) or transcripts.messages(value, needs_assistant=False)
        return _asking(messages or [{"role": "user", "content": value}])
    if (messages := _messages(value, place)) is not None:
        return _asking(messages)
    raise UnreadableRow(f"{place}: the prompt is {shortened(value)}; it must be a text or a list of chat messages")


def _asking(prompt: list[Message]) -> list[Message]:
    """The prompt.

    Raises:
        LeftOut: its last user message, or all that it holds without one, is empty.
    """
    asked = [message["content"] for message in prompt if message["role"] == "user"][-1:]
    if prompt and not "".join(asked or (message["content"] for message in prompt)).strip():
        raise LeftOut("empty")
    return prompt


def response_of(value: Any, transcripts: Transcripts, name: str, place: str) -> tuple[list[Message], str]:
    """The messages before a response (none if `value` is a text alone), and the response's text.

    Raises:
        LeftOut: there is no response, or the conversation does not end with one.
        UnreadableRow: it is neither a text nor a conversation, or is very long.
    """
    if value is None:
        raise LeftOut("null")
    if value == []:
        raise LeftOut("empty")
    if isinstance(value, str):
        messages = _in_json(value, place) or transcripts.messages(value)
        if messages is None:
            messages = [{"role": "assistant", "content": transcripts.without_end(value)}]
    else:
        messages = _messages(value, place)
    if messages is None:
        raise UnreadableRow(f"{place}: {name} is {shortened(value)}; it must be a text or a conversation")
    if not messages or messages[-1]["role"] != "assistant":
        raise LeftOut("no_response")
    if not messages[-1]["content"].strip():
        raise LeftOut("empty")
    return messages[:-1], within_limit(messages[-1]["content"], f"{place}: {name}")


def _messages(value: Any, place: str) -> list[Message] | None:
    return as_messages([value] if isinstance(value, dict) else value, place)


def _in_json(text: str, place: str) -> list[Message] | None:
    """The chat messages that a cell of a table holds as JSON or as Python's literal; None for any other text."""
    value = unpacked(text) if text.startswith("[") else text
    is_list = isinstance(value, list) and all(
        isinstance(item, dict) and item.keys() & {"role", "from"} for item in value
    )
    return as_messages(value, place) if is_list else None


def common_beginning(befores: list[list[Message]]) -> list[Message]:
    """What stands before all of the responses; empty if all are texts alone. Texts alone fit any beginning.

    Raises:
        LeftOut: the conversations differ before their last response, so no one prompt has these responses.
    """
    given = [before for before in befores if before]
    if any(seen(before) != seen(given[0]) for before in given):
        raise LeftOut("diverging")
    return given[0] if given else []


def whole_prompt(asked: list[Message], before: list[Message], system: str | None, place: str) -> list[Message]:
    """The prompt, from the prompt column, what stands before the responses, and the system column.

    A prompt column may repeat a part of the conversation, or be followed by it (which then begins with the assistant).

    Raises:
        LeftOut: the user asks nothing.
        ConfigError: two of them contradict each other.
    """
    system_message = [{"role": "system", "content": system}] if system and system.strip() else []
    parts = [_apart(messages) for messages in (system_message, asked, before)]
    systems = {tuple(seen(head)): head for head, _ in parts if head}
    if len(systems) > 1:
        texts = " and ".join(shortened(head[0]["content"]) for head in systems.values())
        raise ConfigError(f"{place}: two system messages, {texts}; drop labeler.system, or set labeler.prompt to null")
    head = next(iter(systems.values()), [])
    prompt = _asking([*head, *_one(parts[1][1], parts[2][1], place)])
    for message in prompt:
        within_limit(message["content"], f"{place}: a message of the prompt")
    return prompt


def _apart(messages: list[Message]) -> tuple[list[Message], list[Message]]:
    """(the system message, if the messages begin with one; the others)."""
    num_system = int(bool(messages) and messages[0]["role"] == "system")
    return messages[:num_system], messages[num_system:]


def _one(asked: list[Message], before: list[Message], place: str) -> list[Message]:
    if not before or not asked:
        return asked or before
    wanted, there = seen(asked), seen(before)
    if any(there[i : i + len(wanted)] == wanted for i in range(len(there))):
        return before
    if wanted[-len(there) :] == there:
        return asked
    if before[0]["role"] != "user":
        return [*asked, *before]
    raise ConfigError(
        f"{place}: the prompt {shortened(asked[-1]['content'])} is not in the conversation, which begins with "
        f"{shortened(before[0]['content'])}; name the right column in labeler.prompt, or set it to null to read the "
        "conversation alone"
    )


def seen(messages: list[Message]) -> Seen:
    return [(message["role"], message["content"].strip()) for message in messages]
