"""Trains a low-rank adapter and the head of a reward model instead of all weights (LoRA, arXiv 2106.09685).

The adapter is PEFT's. It is added to the model in place and merged at the end, W + (alpha / rank) B A. So a reward
model on disk is always a plain classifier, and the next round may continue training it with a new adapter or without
one.
"""

from __future__ import annotations

import torch
from peft import LoraModel
from transformers import PreTrainedModel

from configs.schema.lora import LoraSettings
from configs.seeds import seed_for
from reward_training.transformer.lora import inserted, lora_config, merge

HEAD = "score"


def add_adapter(model: PreTrainedModel, lora: LoraSettings, seed: int) -> LoraModel:
    """Add an adapter that does not change the outputs yet. Only adapter and head are trained; `merged` removes it.

    Raises:
        ConfigError: the model has no module with a name in `target_modules`, or one whose weight is tied to another's.
    """
    settings = lora_config(model.config, lora, "SEQ_CLS", without=[HEAD])
    with torch.random.fork_rng(), inserted(lora, "reward_models.<name>.lora", model):
        torch.manual_seed(seed_for(seed, "reward_model_adapter") % 2**32)
        adapter = LoraModel(model, settings, "default")
    model.get_submodule(HEAD).requires_grad_(True)
    return adapter


def merged(adapter: LoraModel) -> PreTrainedModel:
    """The model with the adapter merged into its weights and removed."""
    return merge(adapter)
