"""PEFT's settings for our low-rank adapters, and a trial of them that needs no weights."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from peft import LoraConfig, LoraModel
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedConfig, PreTrainedModel

from configs.errors import ConfigError
from configs.schema.lora import LoraSettings
from reward_training.transformer.sharding import is_part, local, split_as

ALL_LINEAR = "all-linear"
FUSED = ("out_proj", "conv1d")
"""modules that the kernels of state-space layers read by themselves; PEFT refuses them"""
BASE = ".base_layer"
"""in the name of a weight that has an adapter beside it"""
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


@contextmanager
def inserted(lora: LoraSettings, field: str, model: PreTrainedModel) -> Iterator[None]:
    """Inside this context an adapter is inserted into `model`. `field` is the configuration's block.

    Raises:
        ConfigError: the adapter does not fit, a listed module is not there, or it changes a weight that is tied to another: merging would change both.
    """
    fault = f"{field}.target_modules={lora.target_modules!r}"
    try:
        with _ties_untold():
            yield
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{fault} does not fit the model: {error}") from error
    if not isinstance(lora.target_modules, str) and (unmatched := _unmatched(lora.target_modules, model)):
        raise ConfigError(
            f"{fault}: no module is called {', '.join(unmatched)}; take the names of the model's own modules"
        )
    if tied := _tied(model):
        raise ConfigError(
            f"{fault} adapts {' and '.join(tied)}, which are one weight (tie_word_embeddings): the merged model would not be the "
            f"one that was trained; leave {'them' if len(tied) > 1 else 'it'} out, or save the model with untied weights "
            "(from_pretrained(..., tie_word_embeddings=False), then save_pretrained)"
        )


def merge(adapter: Any) -> PreTrainedModel:
    """The model with its adapter, which `inserted` let pass, merged into its weights and removed."""
    with _ties_untold():
        if any(map(is_part, adapter.parameters())):
            _add_to_parts(adapter)
            model: PreTrainedModel = adapter.unload()
        else:
            model = adapter.merge_and_unload()
    return model


@torch.no_grad()
def _add_to_parts(adapter: Any) -> None:
    """Merge the adapter, which each rank holds whole, into this rank's parts of the weights."""
    adapted: list[Any] = [module for module in adapter.modules() if isinstance(module, LoraLayer)]
    for module in adapted:
        weight = module.get_base_layer().weight
        for name in module.active_adapters:
            local(weight).add_(local(split_as(weight, module.get_delta_weight(name))))


@contextmanager
def _ties_untold() -> Iterator[None]:
    """PEFT warns of what the configuration says; `inserted` refuses what is so."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Model (has|with) `tie_word_embeddings=True`")
        yield


def _unmatched(targets: Sequence[str], model: PreTrainedModel) -> list[str]:
    """The listed names that no module has, which PEFT passes over as long as another one fits."""
    modules = [f".{name}" for name, _ in model.named_modules()]
    return [target for target in targets if not any(module.endswith(f".{target}") for module in modules)]


def _tied(model: PreTrainedModel) -> list[str]:
    """Names of the modules that share a weight which an adapter changes."""
    places: dict[int, list[str]] = {}
    for name, weight in model.named_parameters(remove_duplicate=False):
        places.setdefault(id(weight), []).append(name)
    shared = next((names for names in places.values() if len(names) > 1 and any(BASE in name for name in names)), [])
    return [name.replace(BASE, "").rpartition(".")[0] for name in shared]


def try_lora(
    model_class: type[PreTrainedModel], config: PreTrainedConfig, lora: LoraSettings, task_type: TaskType, field: str
) -> int:
    """Insert the adapter into a model without weights; returns its number of parameters.

    Raises:
        ConfigError: it does not fit.
    """
    with torch.device("meta"):
        model = model_class(config)
        with inserted(lora, field, model):
            LoraModel(model, lora_config(config, lora, task_type), "default", low_cpu_mem_usage=True)
    return sum(weight.numel() for name, weight in model.named_parameters() if "lora_" in name)
