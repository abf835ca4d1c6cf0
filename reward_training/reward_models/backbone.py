"""Loads the base of a reward model: a causal language model, which gets a new head, or an earlier reward model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from configs.errors import ConfigError
from configs.records import TemplateSettings
from configs.seeds import seed_for
from reward_training.reward_models.heads import CLASSIFIERS, add_head, classifier_class, refuse_without_head
from reward_training.transformer.chat_template import PLAIN, set_up_template
from reward_training.transformer.quiet import quiet_transformers


def load_tokenizer(
    folder: Path | str, template: TemplateSettings = PLAIN, revision: str | None = None
) -> PreTrainedTokenizerBase:
    """The tokenizer, with those of the run's template settings that its chat template reads."""
    try:
        with quiet_transformers():
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(str(folder), revision=revision)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder} holds no tokenizer: {error}") from error
    set_up_template(tokenizer, template, field=None)
    return tokenizer


def load_classifier(folder: Path | str, revision: str | None = None) -> PreTrainedModel:
    """A reward model for scoring, trained here or ready-made.

    Raises:
        ConfigError: it does not load, or has more than one output.
    """
    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(str(folder), revision=revision)
            model = _from_pretrained(config, folder, revision=revision)
    except (OSError, ValueError) as error:
        raise ConfigError(f"reward model {folder} does not load: {error}") from error
    if model.config.num_labels != 1:
        raise ConfigError(
            f"reward model {folder} has {model.config.num_labels} outputs; use a sequence classifier with one output"
        )
    model.eval()  # type: ignore[no-untyped-call]
    return model


def load_backbone(base: Path, seed: int) -> PreTrainedModel:
    """A classifier with one output. Its head is initialized from `seed`, unless the base is a reward model already."""
    try:
        config = AutoConfig.from_pretrained(str(base))
        refuse_without_head(config)
        has_head = "ForSequenceClassification" in str(config.architectures)
        if has_head or type(config) in CLASSIFIERS:
            model = _from_pretrained(config, base, num_labels=1)
        else:
            model = add_head(AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{base} does not load as a reward model: {error}") from error
    if not has_head:
        _draw_head(model, seed)
    return model


def _from_pretrained(config: PreTrainedConfig, folder: Path | str, **options: Any) -> PreTrainedModel:
    kind = AutoModelForSequenceClassification if type(config) in CLASSIFIERS else classifier_class(config)
    model: PreTrainedModel = kind.from_pretrained(str(folder), dtype=torch.float32, **options)
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
