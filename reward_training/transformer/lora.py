"""PEFT's settings for our low-rank adapters, and a trial of them that needs no weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from peft import LoraConfig, LoraModel
from transformers import PreTrainedConfig, PreTrainedModel

from configs.errors import ConfigError
from configs.schema.lora import LoraSettings

ALL_LINEAR = "all-linear"
FUSED = ("out_proj", "conv1d")
"""modules that the kernels of state-space layers read by themselves; PEFT refuses them"""
STATE_SPACE = ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")
"""model types of which PEFT refuses FUSED"""
TaskType = Literal["CAUSAL_LM", "SEQ_CLS"]


def lora_config(
    config: PreTrainedConfig, lora: LoraSettings, task_type: TaskType, *, without: Sequence[str] = ()
) -> LoraConfig:
    """The adapter's settings for a model; `all-linear` leaves out the modules that cannot be adapted, and `without`."""
    targets = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
    is_fused = targets == ALL_LINEAR and config.model_type in STATE_SPACE
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=targets,
        bias="none",
        task_type=task_type,
        exclude_modules=[*without, *(FUSED if is_fused else ())] or None,
    )


def misfit(lora: LoraSettings, field: str, error: ValueError) -> ConfigError:
    """The error for an adapter that does not fit its model. `field` is the configuration's block."""
    return ConfigError(f"{field}.target_modules={lora.target_modules!r} does not fit the model: {error}")


def try_lora(
    model_class: type[PreTrainedModel], config: PreTrainedConfig, lora: LoraSettings, task_type: TaskType, field: str
) -> None:
    """Insert the adapter into a model without weights.

    Raises:
        ConfigError: it does not fit.
    """
    with torch.device("meta"):
        model = model_class(config)
        try:
            LoraModel(model, lora_config(config, lora, task_type), "default", low_cpu_mem_usage=True)
        except ValueError as error:
            raise misfit(lora, field, error) from error
