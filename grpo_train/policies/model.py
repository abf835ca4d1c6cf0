"""Loads and saves policies: folders that `from_pretrained` reads, identified by a hash of their weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from configs.disk.files import weights_id
from configs.errors import ConfigError
from configs.records import Policy
from reward_training.transformer.precision import autocast_dtype, pick_device
from reward_training.transformer.quiet import quiet_transformers

RESERVED_PADS = ("<|finetune_right_pad_id|>", "<|endoftext|>", "<pad>", "[PAD]", "<unk>")
"""reserved tokens that can be the pad token of a model without one, best first"""


def load_policy(
    path: str | Path, *, device: str | torch.device, dtype: torch.dtype = torch.float32
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model in evaluation mode on `device`, and its tokenizer with a pad token.

    Raises:
        ConfigError: `path` holds no causal language model.
    """
    tokenizer = load_tokenizer(path)
    try:
        with quiet_transformers():
            model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(str(path), dtype=dtype)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} holds no causal language model: {error}; set policy.path to one") from error
    model.config.pad_token_id = tokenizer.pad_token_id
    _drop_sampling_defaults(model)
    return model.to(device).eval(), tokenizer  # type: ignore[arg-type]


def load_for_sampling(
    path: str | Path, precision: Literal["auto", "bfloat16", "float32"]
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A policy for sampling only: on the best device, with low-precision weights where the device supports them."""
    device = pick_device()
    return load_policy(path, device=device, dtype=autocast_dtype(precision, device) or torch.float32)


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or hub id, with a pad token.

    Raises:
        ConfigError: `path` holds no tokenizer, or one without an end-of-sequence token.
    """
    try:
        with quiet_transformers():
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(str(path))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} holds no tokenizer: {error}; save one beside the model") from error
    if tokenizer.eos_token_id is None:
        raise ConfigError(f"the tokenizer of {path} has no eos_token; responses could not end: set it in its files")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = _pad_token(tokenizer)
    return tokenizer


def _pad_token(tokenizer: PreTrainedTokenizerBase) -> str:
    """The first reserved token in the vocabulary that is not the end-of-sequence token, or else that token."""
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    reserved = (token for token in RESERVED_PADS if token in vocabulary and token != tokenizer.eos_token)
    return next(reserved, str(tokenizer.eos_token))


def _drop_sampling_defaults(model: PreTrainedModel) -> None:
    """Remove the model's own temperature, top_p and the like, which would get in the way of ours when it is saved."""
    settings: Any = model.generation_config
    if settings is not None:
        settings.do_sample = False
        settings.temperature = settings.top_p = settings.top_k = None


def save_policy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, *, round_index: int
) -> Policy:
    """Write weights (safetensors), tokenizer and chat template to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with quiet_transformers():
        model.save_pretrained(str(folder))
        tokenizer.save_pretrained(str(folder))
    return open_policy(folder, round_index)


def open_policy(folder: Path, round_index: int) -> Policy:
    """The record of a saved policy."""
    return Policy(path=str(folder), id=policy_id(folder), round=round_index)


def policy_id(folder: Path) -> str:
    """Content hash of the weights in `folder`."""
    return weights_id(folder)
