import json
from typing import Any

import numpy as np
import pytest

from configs.disk.rows.messages import as_messages
from configs.errors import ConfigError, UnreadableRow

WANTED = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Say a"},
    {"role": "assistant", "content": "a"},
]
SHARE_GPT = [
    {"from": "system", "value": "Be brief."},
    {"from": "human", "value": "Say a"},
    {"from": "gpt", "value": "a"},
]
PARTS = [
    {
        "role": m["role"],
        "content": [{"type": "text", "text": m["content"][:2]}, {"type": "text", "text": m["content"][2:]}],
    }
    for m in WANTED
]


@pytest.mark.parametrize(
    "value",
    [
        WANTED,
        SHARE_GPT,
        PARTS,
        json.dumps(SHARE_GPT),
        repr(SHARE_GPT),
        np.array(WANTED, dtype=object),
        [m | {"name": None} for m in WANTED],
    ],
)
def test_the_forms_of_conversations_are_one(value: Any) -> None:
    assert as_messages(value, "line 1") == WANTED


def test_texts_are_turns_of_user_and_assistant() -> None:
    assert as_messages(["Say a", "a"], "line 1") == WANTED[1:]


def test_an_answer_that_is_not_there_yet_is_no_message() -> None:
    """A null after the last question made the whole conversation unreadable."""
    unsaid: list[dict[str, Any]] = [{"role": "assistant", "content": None}, {"role": "tool", "content": None}]
    assert as_messages([*WANTED[:2], *unsaid], "line 1") == WANTED[:2]
    assert as_messages([*WANTED, *unsaid, {"role": "user", "content": None}], "line 1") is None
    assert as_messages([*unsaid, *WANTED], "line 1") is None
    assert as_messages(unsaid, "line 1") is None


@pytest.mark.parametrize("text", ['["sort", "this", "list"]', '["a"]', ' ["x", {"role": "user", "content": "y"}]'])
def test_a_text_that_is_a_list_of_texts_is_no_conversation(text: str) -> None:
    """A question about a list was asked as turns of user and assistant."""
    assert as_messages(text, "line 1") is None


@pytest.mark.parametrize(
    "value", ["a text", "", [], None, 5, [{"role": "user"}], [{"role": "user", "content": None}], "[1, 2]", [{"a": 1}]]
)
def test_what_is_no_conversation_is_none(value: Any) -> None:
    assert as_messages(value, "line 1") is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            [{"role": "user", "content": [{"type": "image", "image": "x"}, {"type": "text", "text": "What is it?"}]}],
            "line 1: a message has a part of type 'image'",
        ),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}],
            "of type 'image_url'; Regroup reads text alone",
        ),
        ([{"role": "narrator", "content": "x"}], "line 1: a message has the role 'narrator'"),
    ],
)
def test_what_cannot_be_read_is_named(value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        as_messages(value, "line 1")


@pytest.mark.parametrize("text", ["[{'role': 'user' 'content': 'a'}]", '[{"from": "human", "value": "a'])
def test_a_text_that_begins_as_a_conversation_and_is_none_cannot_be_read(text: str) -> None:
    """It was asked as it stood, with roles, brackets and the answer. The first is how numpy writes a list in a table."""
    with pytest.raises(UnreadableRow, match=r"line 1: .* begins as a conversation"):
        as_messages(text, "line 1")
