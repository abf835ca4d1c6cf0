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
def packed_weights(model: PreTrainedModel, *, head_only: bool = False) -> Iterator[None]:
    """Inside this context, linear layers of a model on a CPU multiply by packed copies of their weights, made on entry.

    Outputs are equal in bfloat16, and equal up to rounding in float32. On other devices, and without oneDNN, nothing
    changes.

    Args:
        head_only: leave out the decoder's layers, which nobody calls where `fused_decoder` computes it.
    """
    part = model.get_output_embeddings() if head_only else model  # type: ignore[no-untyped-call]
    layers = [layer for layer in part.modules() if type(layer) is nn.Linear and can_be_packed(layer)]
    try:
        for layer in layers:
            bias = None if layer.bias is None else layer.bias.detach()
            layer.forward = packed_product(layer.weight.detach(), bias)  # type: ignore[method-assign,assignment]
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


def can_be_packed(layer: nn.Linear) -> bool:
    """Whether its weight is on a CPU, and of a type whose products are fast when packed."""
    # the operators below are registered even where PyTorch was built without oneDNN
    has_library: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    has_kernels = has_library and all(hasattr(torch.ops.mkldnn, name) for name in KERNELS)
    if layer.weight.device.type != "cpu" or not has_kernels:
        return False
    is_fast_in_bfloat16 = torch.ops.mkldnn._is_mkldnn_bf16_supported
    return layer.weight.dtype == torch.float32 or (layer.weight.dtype == torch.bfloat16 and is_fast_in_bfloat16())


def packed_product(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    """Multiplies rows (.., H) by a packed copy of a weight (V, H)."""
    with torch.inference_mode():
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, EXPECTED_ROWS)

    def product(rows: Tensor) -> Tensor:
        result: Tensor = torch.ops.mkldnn._linear_pointwise(rows, packed, bias, "none", [], "")
        return result

    return product
