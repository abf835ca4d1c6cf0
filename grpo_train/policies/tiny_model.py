"""Builds a small random language model in code, for trying out configurations and for the tests.

A real transformers model (Llama, two layers) with a character tokenizer and a chat template. Digits and the
end-of-sequence token are likely from the start, so that a random policy stops by itself and earns some rewards: all
embeddings share one direction, which passes through the residual stream, and the output rows of the likely tokens point
along it.
"""

from __future__ import annotations

import string
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PAD, BOS, UNKNOWN, START, END = "<pad>", "<bos>", "<unk>", "<|im_start|>", "<|im_end|>"
CHARACTERS = string.digits + string.ascii_letters + string.punctuation + " \n"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DIGIT_BIAS = 3.0
END_BIAS = 3.6
"""added to the logits, so that a response ends after about ten tokens, most of them digits"""
MAX_LENGTH = 2048
HEAD_DIM = 16
VLLM_HEAD_DIM = 32
"""the least that vLLM's CPU kernels take"""


def build_tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token per character, 101 tokens in all; unknown characters become <unk>."""
    symbols = [PAD, BOS, UNKNOWN, START, END, *CHARACTERS]
    backend = Tokenizer(models.WordLevel({symbol: i for i, symbol in enumerate(symbols)}, unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=END,
        unk_token=UNKNOWN,
        additional_special_tokens=[START],
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def build_tiny_model(
    tokenizer: PreTrainedTokenizerFast, *, seed: int = 0, head_dim: int = HEAD_DIM
) -> LlamaForCausalLM:
    """Two layers, 64 wide, about 100,000 float32 parameters; the same seed gives the same weights."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=head_dim,
        max_position_embeddings=MAX_LENGTH,
        initializer_range=0.05,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.train(False)
    _make_likely(model, tokenizer)
    return model


def _make_likely(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Raise the logits of digits by DIGIT_BIAS and that of the end-of-sequence token by END_BIAS, at every position."""
    width = model.config.hidden_size
    digits = tokenizer.convert_tokens_to_ids(list(string.digits))
    with torch.no_grad():
        # after the last norm the shared direction is about 1 in each of the `width` dimensions
        model.model.embed_tokens.weight += 0.5
        head = model.lm_head.weight
        head[digits] += DIGIT_BIAS / width
        head[tokenizer.eos_token_id] += END_BIAS / width


def save_tiny_model(folder: Path, *, head_dim: int = HEAD_DIM) -> None:
    """Write the model and its tokenizer as a folder that `from_pretrained` reads."""
    tokenizer = build_tiny_tokenizer()
    build_tiny_model(tokenizer, head_dim=head_dim).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
