"""Reads a GGUF file as a float32 model and the tokenizer that the model was trained with.

transformers gives a byte-level vocabulary GPT-2's rule for cutting text into words wherever it does not know the name in
the file's `tokenizer.ggml.pre`, and says nothing. Digits are then joined, or white space is cut otherwise, and the model
reads tokens that it never saw in training. So the rule is set here, and a name that nobody knows is refused.
"""

from __future__ import annotations

from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader
from tokenizers.pre_tokenizers import ByteLevel, Digits, PreTokenizer, Sequence
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

from configs.errors import ConfigError
from reward_training.transformer.loading.tokenizer import read_tokenizer
from reward_training.transformer.loading.weights import load_model

DIGIT_BY_DIGIT = ("smollm", "starcoder", "refact", "codeshell")
"""vocabularies whose own tokenizer.json has a token a digit, then GPT-2's rule (llama.cpp, src/llama-vocab.cpp)"""
GPT2 = ("gpt-2", "phi-2")
"""vocabularies with GPT-2's rule and nothing else"""


def read_gguf(path: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The dequantised float32 model, without its quantisation settings so that it can be saved, and its tokenizer.

    Raises:
        ConfigError: how the tokenizer cuts text into words is not known, or the file lacks weights.
    """
    rule = word_rule(path)
    file: dict[str, Any] = {"gguf_file": path.name}
    with redirect_stderr(StringIO()):  # the GGUF reader's progress bar cannot be switched off
        packed = load_model(
            AutoModelForCausalLM, path.parent, field="policy.wheel", noun="language model", dtype=torch.float32, **file
        )
        tokenizer = read_tokenizer(path.parent, **file)
    if rule is not None:
        tokenizer.backend_tokenizer.pre_tokenizer = rule
    config = packed.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    model.load_state_dict(packed.state_dict())
    return model, tokenizer


def word_rule(path: Path) -> PreTokenizer | None:
    """How the file's tokenizer cuts text into words, where transformers would take another rule; else None.

    Raises:
        ConfigError: the vocabulary is byte-level, and neither transformers nor this file knows its rule.
    """
    reader = GGUFReader(path)
    vocabulary, name = _text(reader, "tokenizer.ggml.model"), _text(reader, "tokenizer.ggml.pre")
    if vocabulary != "gpt2" or name in GPT2 or name in GGUF_PRE_TOKENIZER_SPLITS:
        return None
    if name in DIGIT_BY_DIGIT:
        return Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    raise ConfigError(
        f"{path.name}: how its tokenizer cuts text into words is not known (tokenizer.ggml.pre={name!r}), and a wrong rule "
        "gives the model tokens that it never saw; set policy.path to the model's own folder or hub id"
    )


def _text(reader: GGUFReader, key: str) -> str | None:
    field = reader.get_field(key)
    return None if field is None else str(field.contents())
