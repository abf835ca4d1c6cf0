"""Which tokens end a response."""

from __future__ import annotations

import pytest

from reward_training.transformer.turn_ends import TurnEnd, turn_end
from tests.reward_training.transformer.templates import CHATML, PLAIN_TURNS, of_trl, tokenizer_with


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("qwen3", "<|im_end|>"),
        ("llama3_2", "<|eot_id|>"),
        ("gemma", "<end_of_turn>"),
        ("phi3", "<|end|>"),  # the whole conversation ends with <|endoftext|>
        ("gptoss", "<|return|>"),  # <|end|> ends its thoughts
        ("glm4moe", "<|user|>"),  # its turns have a beginning alone
        ("cohere2", "<|END_RESPONSE|>"),
        ("deepseek_r1_distill", "<｜end▁of▁sentence｜>"),
    ],
)
def test_turn_ends_of_real_templates(name: str, text: str) -> None:
    tokenizer = tokenizer_with(of_trl(name))
    assert turn_end(tokenizer) == TurnEnd(text, tokenizer.convert_tokens_to_ids(text))


def test_plain_text_ends_no_response() -> None:
    assert turn_end(tokenizer_with(PLAIN_TURNS)) == TurnEnd("### user:", None)


@pytest.mark.parametrize("template", [None, "{{ messages[0].content }}", "{{ raise_exception('no') }}"])
def test_no_turn_end(template: str | None) -> None:
    tokenizer = tokenizer_with(template or CHATML)
    tokenizer.chat_template = template
    assert turn_end(tokenizer) is None
