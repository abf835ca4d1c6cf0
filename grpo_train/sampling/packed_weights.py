"""Packs weights into the blocked layout of oneDNN's kernels, for sampling on a CPU, where products have few rows.

A product with a weight in PyTorch's layout reorders it into the kernel's blocks every time; with few rows that takes as
long as the arithmetic. PyTorch's inductor packs the weights of frozen models in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

KERNELS = ("_reorder_linear_weight", "_linear_pointwise", "_is_mkldnn_bf16_supported")
"""inductor's operators; where another version of PyTorch lacks one, weights are not packed"""
EXPECTED_ROWS = 32
"""number of rows of a product to pack for; the best layout depends little on it"""


@contextmanager
def packed_weights(model: PreTrainedModel) -> Iterator[None]:
    """Inside this context, linear layers of a model on a CPU multiply by packed copies of their weights, made on entry.

    Outputs are equal in bfloat16, and equal up to rounding in float32. On other devices, and without oneDNN, nothing
    changes.
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
    # the operators below are registered even where PyTorch was built without oneDNN
    has_library: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
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
