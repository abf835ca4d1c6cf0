"""Weights as oneDNN's kernels read them, for the products of few rows that sampling on a CPU is made of.

A product with a weight as PyTorch holds it brings it into the kernel's blocks every time; over a few rows that takes as long as
the arithmetic. PyTorch's inductor packs the weights of frozen models in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

KERNELS = ("_reorder_linear_weight", "_linear_pointwise", "_is_mkldnn_bf16_supported")
"""inductor's; another version of PyTorch may have others, and then weights stay as they are"""
EXPECTED_ROWS = 32
"""of a product; kernels differ little in the blocks that they want"""


@contextmanager
def packed_weights(model: PreTrainedModel) -> Iterator[None]:
    """Inside, the linear layers of a model on a CPU multiply by packed copies of the weights that they have at the start.

    What they return is equal in bfloat16, and equal up to rounding in float32. On other devices, and without oneDNN, nothing happens.
    """
    layers = [layer for layer in model.modules() if type(layer) is nn.Linear and _can_be_packed(layer)]
    try:
        for layer in layers:
            layer.forward = _packed(layer)  # type: ignore[method-assign,assignment]
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


def _can_be_packed(layer: nn.Linear) -> bool:
    has_library: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call] # names are there without it too
    has_kernels = has_library and all(hasattr(torch.ops.mkldnn, name) for name in KERNELS)
    if layer.weight.device.type != "cpu" or not has_kernels:
        return False
    is_fast_in_bfloat16 = torch.ops.mkldnn._is_mkldnn_bf16_supported
    return layer.weight.dtype == torch.float32 or (layer.weight.dtype == torch.bfloat16 and is_fast_in_bfloat16())


def _packed(layer: nn.Linear) -> Callable[[Tensor], Tensor]:
    with torch.inference_mode():
        weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), EXPECTED_ROWS)
    bias = layer.bias

    def forward(rows: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
        return product

    return forward
