"""Chat templates of several kinds, and a tokenizer of characters that knows their marks as special tokens."""

from __future__ import annotations

import re
from pathlib import Path

import trl
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

MARK = re.compile(r"<[|｜][^<>'\"\s{}]{1,40}[|｜]>|</?s>|<(?:start|end)_of_(?:turn|utterance)>|<\|turn>|<turn\|>")
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
STRICT = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}"
    "{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}"
    "{% if not message.content | trim %}{{ raise_exception('Empty message') }}{% endif %}"
    "[{{ message.role }}] {{ message.content | trim }}<|eot|>\n{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"
)
"""takes no system message, no two turns of a role in a row, and no empty message"""
STRIPPING = CHATML.replace("{{ message.content }}", "{{ message.content.split('</think>')[-1] | trim }}")
DATED = "{% if not day is defined %}{% set day = strftime_now('%d %b %Y') %}{% endif %}Today: {{ day }}.\n" + CHATML
THINKING = (
    CHATML
    + "{% if add_generation_prompt and enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"
)
PLAIN_TURNS = (
    "{% for message in messages %}### {{ message.role }}:\n{{ message.content }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}### assistant:\n{% endif %}"
)


def of_trl(name: str) -> str:
    """A real model's template, as TRL ships it."""
    return (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


def tokenizer_with(template: str, *, eos: str = "<|endoftext|>") -> PreTrainedTokenizerFast:
    """A tokenizer of characters with that chat template, whose marks are special tokens."""
    special = ["<|unk|>", *sorted({eos, "<|bos|>", *MARK.findall(template)})]
    characters = [chr(code) for code in range(32, 127)] + ["\n"]
    vocabulary = {token: number for number, token in enumerate([*special, *characters])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<|unk|>"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    core.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="<|unk|>",
        eos_token=eos,
        bos_token="<|bos|>",
        additional_special_tokens=special[1:],
    )
    tokenizer.chat_template = template
    return tokenizer
