"""A model's weights one after the other, whole and under the names that its files on disk have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

BASE = ".base_layer."
"""in the name of a weight that has an adapter beside it"""
LORA = ".lora_"
ADAPTER = "default"
"""PEFT's name of an adapter that was given none"""


def named_weights(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of each weight; of tied ones the first. An adapter is merged into what it yields, not into the model.

    Of a sharded model each tensor is gathered, so all ranks have to iterate to the end.
    """
    if getattr(model, "_weight_conversions", None):  # several weights of a file may be one of the model
        yield from revert_weight_conversion(model, dict(_in_memory(model))).items()
    else:
        yield from _in_memory(model)


def _in_memory(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    seen: set[int] = set()
    for name, weight in model.state_dict(keep_vars=True).items():
        if id(weight) in seen or LORA in name:
            continue
        seen.add(id(weight))
        merged = whole(weight.detach())
        if name.endswith(f"{BASE}weight"):
            layer: Any = model.get_submodule(name.removesuffix(f"{BASE}weight"))
            merged = merged + layer.get_delta_weight(ADAPTER).detach().to(weight.dtype)
        yield name.replace(BASE, "."), merged


def adapter_weights(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of each weight of the adapter in `model`, as PEFT names them in adapter_model.safetensors."""
    for name, weight in model.state_dict(keep_vars=True).items():
        if LORA in name:
            yield f"base_model.model.{re.sub(rf'[.]{ADAPTER}(?=[.]|$)', '', name)}", whole(weight.detach())


def whole(tensor: Tensor) -> Tensor:
    """The tensor, gathered from all ranks if it is sharded (a DTensor)."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()
