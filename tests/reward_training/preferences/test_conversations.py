"""What of a conversation is the prompt, and what is refused or left out."""

from __future__ import annotations

from typing import Any

import pytest

from configs.errors import ConfigError
from configs.schema.preferences import Turns
from reward_training.preferences.conversations import Transcripts
from tests.reward_training.preferences.conftest import Read, says, system, texts, user

Q, A, B = user("Why?"), says("a"), says("b")


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": "Why?", "chosen": [system("S"), Q, A], "rejected": [system("S"), Q, B]}, [system("S"), Q]),
        ({"prompt": [Q], "chosen": [system("S"), Q, A], "rejected": [system("S"), Q, B]}, [system("S"), Q]),
        ({"prompt": [system("S"), Q], "chosen": [Q, A], "rejected": [Q, B]}, [system("S"), Q]),
        ({"prompt": [system("S"), Q], "chosen": [system("S"), Q, A], "rejected": "b"}, [system("S"), Q]),
        ({"prompt": " Why?\n", "chosen": [user("Hi"), says("Yes"), Q, A], "rejected": [user("Hi"), says("Yes"), Q, B]},
         [user("Hi"), says("Yes"), Q]),
        ({"prompt": "Hi", "chosen": [user("Hi"), says("Yes"), Q, A], "rejected": "b"}, [user("Hi"), says("Yes"), Q]),
        ({"prompt": [user("Hi"), says("Yes"), Q], "chosen": [Q, A], "rejected": [Q, B]}, [user("Hi"), says("Yes"), Q]),
        ({"prompt": [user("Hi")], "chosen": [says("Yes"), Q, A], "rejected": [says("Yes"), Q, B]},
         [user("Hi"), says("Yes"), Q]),
        ({"chosen": [system("S"), Q, A], "rejected": "b"}, [system("S"), Q]),
        ({"prompt": [Q, says("calls"), {"role": "tool", "content": "4"}], "chosen": A, "rejected": B},
         [Q, says("calls"), {"role": "tool", "content": "4"}]),
    ],
)  # fmt: skip
def test_what_stands_before_the_response_is_the_prompt(read: Read, row: dict[str, Any], prompt: list[Any]) -> None:
    """A prompt column once replaced all of the conversation, so that the reward model never saw the system message."""
    [pair] = read([row]).pairs
    assert (pair.prompt, pair.chosen, pair.rejected) == (prompt, "a", "b")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "Who?", "chosen": [Q, A], "rejected": [Q, B]},
         r"line 2: the prompt 'Who\?' is not in the conversation, which begins with 'Why\?'; name the right column"),
        ({"prompt": "Who?", "chosen": A, "rejected": [Q, B]}, r"line 2: the prompt 'Who\?' is not in the conversation"),
        ({"prompt": [system("S"), Q], "chosen": [system("T"), Q, A], "rejected": [system("T"), Q, B]},
         "line 2: two system messages, 'S' and 'T'"),
        ({"prompt": [Q, says("Yes")], "chosen": [Q, says("No"), user("So?"), A],
          "rejected": [Q, says("No"), user("So?"), B]}, "line 2: the prompt 'Yes' is not in the conversation"),
    ],
)  # fmt: skip
def test_a_prompt_that_is_not_the_conversations_stops_and_names_the_row(
    read: Read, row: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        read([{"prompt": "x", "chosen": "a", "rejected": "b"}, row])


def test_without_a_prompt_column_the_conversation_alone_is_read(read: Read) -> None:
    row = {"prompt": "Summary of it", "chosen": [Q, A], "rejected": [Q, B]}
    assert read([row], prompt=None).pairs[0].prompt == [Q]
    with pytest.raises(
        ConfigError, match=r"no column 'q'; set labeler.prompt to one of 'chosen', 'prompt', 'rejected'"
    ):
        read([row], prompt="q")


def test_a_system_column_goes_first_and_may_be_empty(read: Read) -> None:
    rows = [{"sys": text, "prompt": "Why?", "chosen": "a", "rejected": "b"} for text in ("S", "", None, " ")]
    read_back = read(rows, system="sys")
    assert [pair.prompt for pair in read_back.pairs] == [[system("S"), Q], [Q]]
    assert read_back.left_out == {"duplicate": 2}
    with pytest.raises(ConfigError, match=r"two system messages, 'S' and 'T'; drop labeler.system"):
        read([{"sys": "S", "chosen": [system("T"), Q, A], "rejected": [system("T"), Q, B]}], system="sys")
    with pytest.raises(ConfigError, match=r"'sys' is 5; labeler.system needs a column with text"):
        read([{"sys": 5, "prompt": "x", "chosen": "a", "rejected": "b"}], system="sys")


def test_conversations_that_differ_before_their_last_response_are_left_out(read: Read) -> None:
    """One prompt can not have both responses: the label is about several turns."""
    rows = [
        {"chosen": [Q, A], "rejected": [Q, B]},
        {"chosen": [Q, says("x"), user("So?"), A], "rejected": [Q, says("y"), user("So?"), B]},
        {"chosen": [Q, A], "rejected": [Q, says("x"), user("So?"), B]},
        {"chosen": [system("S"), Q, A], "rejected": [Q, B]},
    ]
    found = read(rows)
    assert texts(found) == [("a", "b")]
    assert (found.num_rows, found.left_out) == (4, {"diverging": 3})


def test_prompts_of_several_columns(read: Read) -> None:
    rows = [
        {"a": {"title": "T"}, "b": body, "chosen": "x", "rejected": f"y{body}"} for body in ("Text", "", None)
    ]  # fmt: skip
    found = read(rows, prompt="{a.title}\n\n{b}")
    assert [pair.prompt[0]["content"] for pair in found.pairs] == ["T\n\nText", "T", "T"]
    with pytest.raises(ConfigError, match=r"'a' holds a dict; labeler.prompt needs columns with text"):
        read(rows, prompt="{a}{b}")


# ---- texts with turn marks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "turns", "messages"),
    [
        ("\n\nHuman: Why?\n\nAssistant: a", None, [Q, A]),
        ("Human: Why?\n\nAssistant: a", None, [Q, A]),
        ("\n\nHuman: Why?\n\nAssistant: a\n\nAssistant: b", None, [Q, says("a\n\nb")]),
        ("\n\nHuman: Why?\n\nAssistant:", None, [Q]),
        ("Tell me about Human: and\n\nAssistant: marks", None, None),
        ("Human: not a transcript", None, None),
        ("Human: Why?\nAssistant: a", None, None),
        ("Human: Why?\nAssistant: a", Turns(user="\nHuman:", assistant="\nAssistant:"), [Q, A]),
        ("S. USER: Why? ASSISTANT: a</s>USER: So? ASSISTANT: b</s>",
         Turns(user="USER:", assistant="ASSISTANT:", end="</s>"), [system("S."), Q, A, user("So?"), B]),
        ("Why?\n<bot>\na\n<me>\nSo?", Turns(user="<me>", assistant="<bot>"), [Q, A, user("So?")]),
        ("<|system|>S<|prompter|>Why?<|end|><|assistant|>a<|end|>",
         Turns(user="<|prompter|>", assistant="<|assistant|>", system="<|system|>", end="<|end|>"), [system("S"), Q, A]),
        ("### Instruction:\nWhy?\n\n### Response:\na",
         Turns(user="### Instruction:", assistant="### Response:"), [Q, A]),
    ],
)  # fmt: skip
def test_a_text_with_turn_marks_is_a_conversation(text: str, turns: Turns | None, messages: list[Any] | None) -> None:
    assert Transcripts(turns).messages(text) == messages


def test_two_texts_without_marks_and_without_a_prompt_are_refused(read: Read) -> None:
    """Letters that two texts begin with are no prompt: `It is blue` and `It is black` share `It is bl`."""
    with pytest.raises(
        ConfigError, match=r"line 1: no column 'prompt', and chosen and rejected are no two .* labeler.turns"
    ):
        read([{"chosen": "The sky is blue.", "rejected": "The sky is green."}])


def test_conversations_in_the_cells_of_a_table(read: Read) -> None:
    cell = '"[{""role"": ""user"", ""content"": ""Why?""}, {""role"": ""assistant"", ""content"": ""%s""}]"'
    found = read(f"chosen,rejected\n{cell % 'a'},{cell % 'b'}\n", file="pairs.csv")
    assert [(pair.prompt, pair.chosen, pair.rejected) for pair in found.pairs] == [([Q], "a", "b")]
    [listed] = read([{"prompt": "[1, 2] sorted?", "chosen": "[1, 2]", "rejected": '["a", "b"]'}]).pairs
    assert (listed.chosen, listed.rejected) == ("[1, 2]", '["a", "b"]')
