"""Loads the base of a reward model: a causal language model, which gets a new head, or an earlier reward model."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from configs.errors import ConfigError
from configs.records import TemplateSettings
from configs.seeds import seed_for
from reward_training.reward_models.heads import CLASSIFIERS, add_head, classifier_class, refuse_without_head
from reward_training.transformer.chat_template import PLAIN, set_up_template
from reward_training.transformer.loading.tokenizer import read_tokenizer
from reward_training.transformer.loading.weights import Loads, check_weights, is_quantised, load_model, read_config
from reward_training.transformer.sharding import Sharding, is_sharded

FROZEN, BACKBONE = "reward_models.<name>.path", "reward_models.<name>.backbone.path"
"""the fields that name a ready-made reward model, and what a trained one begins from"""
CLASSIFIER, BASE = "reward model", "model that a reward model can begin from"
HEAD = "score."


def load_tokenizer(
    folder: Path | str, template: TemplateSettings = PLAIN, revision: str | None = None
) -> PreTrainedTokenizerBase:
    """The tokenizer, with those of the run's template settings that its chat template reads."""
    tokenizer = read_tokenizer(folder, revision=revision)
    set_up_template(tokenizer, template, field=None)
    return tokenizer


def load_classifier(
    folder: Path | str, revision: str | None = None, *, sharding: Sharding | None = None
) -> PreTrainedModel:
    """A reward model for scoring, trained here or ready-made.

    With `sharding`, which all ranks call for together, each holds a part of the model, unless it is quantised: then each
    holds it whole, since its kernels know no parts.

    Raises:
        ConfigError: it does not load, lacks weights (a head of another name, for instance), or has more than one output.
    """
    config = classifier_config(folder, FROZEN, revision)
    model = load_model(
        _class_of(config),
        folder,
        field=FROZEN,
        noun=CLASSIFIER,
        sharding=None if is_quantised(config) else sharding,
        revision=revision,
        dtype=torch.float32,
    )
    if is_sharded(model):
        model.requires_grad_(False)  # autocast would keep a copy of each weight that wants a gradient
    model.eval()  # type: ignore[no-untyped-call]
    return model


def check_classifier(folder: Path, field: str) -> None:
    """Check a folder as `load_classifier` and its tokenizer do, without holding its weights.

    Raises:
        ConfigError: in their cases.
    """
    kind = _class_of(classifier_config(folder, field))
    check_weights(kind, folder, load_tokenizer(folder), field=field, noun=CLASSIFIER)


def classifier_config(folder: Path | str, field: str, revision: str | None = None) -> PreTrainedConfig:
    """The configuration of a sequence classifier with one output; `field` names it in messages.

    Raises:
        ConfigError: there is none, or it has more outputs.
    """
    config = read_config(folder, field=field, noun=CLASSIFIER, revision=revision)
    if config.num_labels != 1:
        raise ConfigError(
            f"{field}: reward model {folder} has {config.num_labels} outputs; use a sequence classifier with one output"
        )
    return config


def load_backbone(base: Path, seed: int) -> PreTrainedModel:
    """A classifier with one output. Its head is initialized from `seed`, unless the base is a reward model already.

    Raises:
        ConfigError: it does not load, lacks weights other than a new head's, or no reward model can be made of it.
    """
    config = _backbone_config(base, BACKBONE)
    load = partial(load_model, path=base, field=BACKBONE, noun=BASE, dtype=torch.float32)
    if _has_head(config):
        return load(_class_of(config))
    if type(config) in CLASSIFIERS:
        model = load(AutoModelForSequenceClassification, new=HEAD, num_labels=1)
    else:
        model = add_head(load(AutoModelForCausalLM))
    _draw_head(model, seed)
    return model


def check_backbone(base: Path, field: str) -> None:
    """Check a folder as `load_backbone` and its tokenizer do, without holding its weights.

    Raises:
        ConfigError: in their cases.
    """
    config, check = _backbone_config(base, field), partial(check_weights, folder=base, tokenizer=load_tokenizer(base))
    if _has_head(config):
        check(_class_of(config), field=field, noun=BASE)
    elif type(config) in CLASSIFIERS:
        check(AutoModelForSequenceClassification, field=field, noun=BASE, new=HEAD)
    else:
        check(AutoModelForCausalLM, field=field, noun=BASE)


def _backbone_config(base: Path, field: str) -> PreTrainedConfig:
    config = read_config(base, field=field, noun=BASE)
    refuse_without_head(config)
    return classifier_config(base, field) if _has_head(config) else config


def _has_head(config: PreTrainedConfig) -> bool:
    return "ForSequenceClassification" in str(config.architectures)


def _class_of(config: PreTrainedConfig) -> Loads:
    return AutoModelForSequenceClassification if type(config) in CLASSIFIERS else classifier_class(config)


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
