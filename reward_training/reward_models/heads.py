"""Reward models for every causal language model: transformers' classifier where it has one, else a head on the decoder.

The head is transformers' own mixin, GenericForSequenceClassification: one linear layer on the last hidden state of the
last token. A model of several modalities gives its text decoder alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_layers import GenericForSequenceClassification
from transformers.modeling_outputs import SequenceClassifierOutput

from configs.errors import ConfigError

CLASSIFIERS = AutoModelForSequenceClassification._model_mapping
CAUSAL = AutoModelForCausalLM._model_mapping


def classifier_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """The class of a reward model with this configuration.

    Raises:
        ConfigError: no reward model can be made of such a model.
    """
    kind = type(config)
    if kind in CLASSIFIERS:
        return _one_of(CLASSIFIERS[kind])
    text_kind = type(config.get_text_config())
    if text_kind not in CAUSAL:
        raise ConfigError(
            f"no reward model can be made of {config.model_type}, which is no causal language model; set "
            "reward_models.<name>.backbone.path to one"
        )
    return _with_head(text_kind, _one_of(CAUSAL[text_kind]))


def causal_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """The class of a language model with this configuration.

    Raises:
        ConfigError: it is no causal language model.
    """
    if type(config) not in CAUSAL:
        raise ConfigError(f"{config.model_type} is no causal language model; set policy.path to one")
    return _one_of(CAUSAL[type(config)])


def refuse_without_head(config: PreTrainedConfig) -> None:
    """Check, without any weights, that a reward model can be trained from a model with this configuration.

    Raises:
        ConfigError: it is no causal language model, or transformers' classifier for it has no linear head `score`.
    """
    try:
        with torch.device("meta"):
            model = classifier_class(config)(config)
    except ConfigError:
        raise
    except ValueError as error:  # it has no class of its own for the body
        raise ConfigError(
            f"no reward model can be made of {config.model_type}: {error}; set reward_models.<name>.backbone.path to a causal "
            "language model"
        ) from error
    if not isinstance(getattr(model, "score", None), nn.Linear):
        raise ConfigError(
            f"no reward model can be trained from {config.model_type}, whose classifier has no linear head on the last token; set "
            "reward_models.<name>.backbone.path to a causal language model"
        )


def _one_of(found: Any) -> type[PreTrainedModel]:
    """A mapping of transformers may list several classes for a configuration, the usual one first."""
    first: type[PreTrainedModel] = found[0] if isinstance(found, list | tuple) else found
    return first


class LastTokenHead(GenericForSequenceClassification):
    """The mixin with a forward pass that asks nothing of the decoder but its last hidden states; some keep no cache."""

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **options: Any
    ) -> SequenceClassifierOutput:
        """Scores at the last token that is not the pad token; `logits` are (B, num_labels)."""
        model: Any = self
        decoder = getattr(model, self.base_model_prefix)
        options |= {"attention_mask": attention_mask, "use_cache": False}
        states = decoder(input_ids=input_ids, **options).last_hidden_state
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        pad_id = model.config.get_text_config().pad_token_id
        last = (places * torch.ones_like(input_ids) if pad_id is None else places * (input_ids != pad_id)).argmax(-1)
        return SequenceClassifierOutput(logits=model.score(states[torch.arange(len(last), device=last.device), last]))


def _with_head(config_class: type[PreTrainedConfig], causal: type[PreTrainedModel]) -> type[PreTrainedModel]:
    """A class like transformers' own XForSequenceClassification."""
    family = next(
        base for base in causal.__mro__[1:] if issubclass(base, PreTrainedModel) and "lm_head" not in vars(base)
    )
    name = causal.__name__.removesuffix("ForCausalLM").removesuffix("LMHeadModel") + "ForSequenceClassification"
    made: type[PreTrainedModel] = type(
        name, (LastTokenHead, family), {"config_class": config_class, "__module__": causal.__module__}
    )  # transformers reads the module's source to see what attention and experts the class can have
    return made


def add_head(causal: PreTrainedModel) -> PreTrainedModel:
    """The classifier with the causal model's decoder, whose head is yet to be drawn.

    Raises:
        ConfigError: the model has no decoder of its own.
    """
    decoder = causal.get_decoder()  # type: ignore[no-untyped-call]
    if decoder is causal:  # llama4_text gives another name than it has
        decoder = getattr(causal, "model", None)
    if not isinstance(decoder, PreTrainedModel):
        raise ConfigError(f"no reward model can be made of {causal.config.model_type}, which has no decoder of its own")
    config = decoder.config
    config.num_labels = 1
    with torch.device("meta"):
        model: Any = classifier_class(config)(config)
    setattr(model, model.base_model_prefix, decoder)
    model.score = nn.Linear(config.get_text_config().hidden_size, 1, bias=False)
    whole: PreTrainedModel = model
    return whole
