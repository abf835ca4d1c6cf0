"""Loads the base of a reward model: a causal language model, which gets a new head, or an earlier reward model."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from configs.errors import ConfigError
from configs.seeds import seed_for


def load_tokenizer(base: Path) -> PreTrainedTokenizerBase:
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(str(base))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{base} holds no tokenizer: {error}") from error
    return tokenizer


def load_backbone(base: Path, seed: int) -> PreTrainedModel:
    """A classifier with one output. Its head is initialized from `seed`, unless the base is a reward model already."""
    try:
        has_head = "ForSequenceClassification" in str(AutoConfig.from_pretrained(str(base)).architectures)
        model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
            str(base), num_labels=1, dtype=torch.float32
        )
    except (OSError, ValueError) as error:
        raise ConfigError(f"{base} does not load as a reward model: {error}") from error
    if not has_head:
        _draw_head(model, seed)
    return model


def _draw_head(model: PreTrainedModel, seed: int) -> None:
    """Draw the head from a normal with the model's initializer_range, as transformers does, by our own generator."""
    weight = model.get_submodule("score").weight
    assert isinstance(weight, torch.Tensor)
    deviation = getattr(model.config.get_text_config(), "initializer_range", 0.02)
    generator = torch.Generator().manual_seed(seed_for(seed, "reward_model_head"))
    with torch.no_grad():
        weight.copy_(torch.randn(weight.shape, generator=generator) * deviation)


def set_pad_token(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, last_id: int) -> None:
    """Set a pad token that differs from `last_id`, the token at the end of each conversation.

    transformers takes the score at the last token that is not the pad token.
    """
    special = [tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id, *tokenizer.all_special_ids]
    pad_id = next(i for i in [*special, *range(len(tokenizer))] if i is not None and i != last_id)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad_id)
    model.config.get_text_config().pad_token_id = pad_id
