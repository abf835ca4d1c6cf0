"""Fixtures: a tokenizer, a tiny policy, problems and completions, all built in code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from configs.records import Completion, Problem

TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<|unk|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """A character tokenizer with a chat template, whose pad token is the end token, as in SmolLM2."""
    characters = [chr(code) for code in range(32, 127)] + ["\n"]
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *characters])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<|unk|>"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    core.decoder = decoders.Fuse()
    made = PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="<|unk|>",
        eos_token="<|end|>",
        pad_token="<|end|>",
        additional_special_tokens=SPECIAL[2:],
    )
    made.chat_template = TEMPLATE
    return made


@pytest.fixture(scope="session")
def policy_folder(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer Llama with its tokenizer."""
    folder = tmp_path_factory.mktemp("policy")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        eos_token_id=1,
        pad_token_id=1,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


def problem(key: str = "p", prompt: Any = "2 + 3 = ?", answer: str = "5", **fields: Any) -> Problem:
    return Problem(**{"key": key, "prompt": prompt, "answer": answer, "source": "test", "split": "train", **fields})


def completion(text: str, problem_key: str = "p", index: int = 0, **fields: Any) -> Completion:
    tokens = list(range(fields.pop("num_tokens", len(text))))
    return Completion(
        **{
            "problem_key": problem_key,
            "index": index,
            "prompt_ids": [1],
            "token_ids": tokens,
            "text": text,
            "finish_reason": "stop",
            "logprobs": [0.0] * len(tokens),
            "policy_id": "policy",
            "step": 0,
            "seed": 0,
            **fields,
        }
    )


@pytest.fixture
def make_problem() -> Callable[..., Problem]:
    return problem


@pytest.fixture
def make_completion() -> Callable[..., Completion]:
    return completion
