"""Prompts and conversations rendered as text and token ids."""

from __future__ import annotations

import copy

import pytest
from transformers import PreTrainedTokenizerFast

from configs.records import Message
from reward_training.transformer.rendering import conversation_ids, conversation_text, prompt_text, unwritten

MESSAGES = [{"role": "user", "content": "2 + 3?"}]


def test_messages_go_through_the_template(tokenizer: PreTrainedTokenizerFast) -> None:
    assert prompt_text(tokenizer, MESSAGES) == "<|user|>2 + 3?<|end|>\n<|assistant|>"
    assert conversation_text(tokenizer, MESSAGES, "5") == "<|user|>2 + 3?<|end|>\n<|assistant|>5<|end|>\n"


def test_conversation_begins_with_the_prompt(tokenizer: PreTrainedTokenizerFast) -> None:
    assert conversation_text(tokenizer, MESSAGES, "5").startswith(prompt_text(tokenizer, MESSAGES))


CHANNELS = (
    "{% for message in messages %}{% for part in [message.content, message.thinking or ''] %}{% if '<|channel|>' in part %}"
    "{{ raise_exception('channels') }}{% endif %}{% endfor %}<{{ message['role'] }}>"
    "{% if message.thinking %}({{ message.thinking }}){% endif %}{{ message.content }}\n{% endfor %}"
)
"""refuses channels in messages, as gpt-oss's template does"""


@pytest.mark.parametrize(
    ("response", "rendered"),
    [
        ("<|channel|>analysis<|message|>7?<|end|><|start|>assistant<|channel|>final<|message|>8", "(7?)8"),
        ("<|channel|>final<|message|>8<|end|>", "8"),
        ("<|channel|>analysis<|message|>7?", "(7?)"),  # cut off
        ("<think>7?</think>8", "<think>7?</think>8"),
    ],
)
def test_channels_of_gpt_oss_are_thoughts_and_content_of_the_message(
    response: str, rendered: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Its template raises an error on a message whose content has channels, and would end the stage."""
    strict = copy.deepcopy(tokenizer)
    strict.chat_template = CHANNELS
    assert conversation_text(strict, MESSAGES, response) == f"<user>2 + 3?\n<assistant>{rendered}\n"


def test_plain_text_stays_as_it_is(tokenizer: PreTrainedTokenizerFast) -> None:
    assert prompt_text(tokenizer, "2 + 3 =") == "2 + 3 ="
    assert conversation_text(tokenizer, "2 + 3 =", " 5") == "2 + 3 = 5<|end|>"


def test_messages_without_a_template_are_lines(tokenizer: PreTrainedTokenizerFast) -> None:
    bare = copy.deepcopy(tokenizer)
    bare.chat_template = None
    messages = [{"role": "system", "content": "Be brief."}, *MESSAGES]
    assert prompt_text(bare, messages) == "Be brief.\n2 + 3?\n"
    assert conversation_text(bare, messages, "5") == "Be brief.\n2 + 3?\n5<|end|>"


def test_special_tokens_of_the_template_are_single_ids(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = conversation_ids(tokenizer, [conversation_text(tokenizer, MESSAGES, "5")])[0]
    assert tokenizer.convert_ids_to_tokens(ids) == [
        "<|user|>",
        *"2 + 3?",
        "<|end|>",
        "\n",
        "<|assistant|>",
        "5",
        "<|end|>",
        "\n",
    ]
    assert conversation_ids(tokenizer, []) == []


@pytest.mark.parametrize(
    ("text", "contents", "lost"),
    [
        ("<s>Be brief. 2 + 3?", ["Be brief.", "2 + 3?"], []),
        ("<u>2 + 3?", ["Be brief.", "2 + 3?"], [0]),
        (
            "<u>Answer: is 5 odd?",
            ["Answer: is 5", "Answer: is 5 odd?"],
            [0],
        ),  # part of the question is no system message
        ("<u>2 + 3?<a>5<u>Sure?", ["", "2 + 3?", "<think>2 and 3</think>\n5", "Sure?"], []),
        ("<u>2 + 3?<u>Sure?", [" ", "2 + 3?", "<think>2 and 3</think>\n5", "Sure?"], [2]),
        ("<u>Go on.<a>4", ["", "Go on.", "4", "Go on."], [3]),  # once each
    ],
)
def test_messages_that_a_template_does_not_write(text: str, contents: list[str], lost: list[int]) -> None:
    roles = ["system", "user", "assistant", "user"]
    prompt: list[Message] = [
        {"role": role, "content": content} for role, content in zip(roles[: len(contents)], contents, strict=True)
    ]
    found = unwritten(text, prompt)
    assert [message["content"] for message in found] == [contents[i] for i in lost]
