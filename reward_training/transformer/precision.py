"""Chooses device, precision and deterministic kernels. Weights stay float32; autocast multiplies in bfloat16."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn


def pick_device() -> torch.device:
    """The first GPU if there is one, otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def is_fast_in_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies in bfloat16 faster than in float32: an NVIDIA GPU since Ampere, a CPU with AMX or with
    avx512_bf16.

    Where a processor with AVX512-FP16 (Intel's since 2023) hides AMX, as virtual machines do, avx512_bf16 alone has no more
    products a cycle than float32: torch took 1.6 times as long (findings/torch_bfloat16_without_amx.sh).
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        has = torch.cpu.get_capabilities()
        return bool(has.get("amx_bf16") or (has.get("avx512_bf16") and not has.get("avx512_fp16")))
    return False


def autocast(device: torch.device, precision: Literal["auto", "float32"] = "auto") -> torch.autocast:
    """A bfloat16 autocast context; it does nothing if the device is not fast in it or `precision` is float32."""
    return torch.autocast(
        device.type, dtype=torch.bfloat16, enabled=precision == "auto" and is_fast_in_bfloat16(device)
    )


def autocast_dtype(precision: Literal["auto", "bfloat16", "float32"], device: torch.device) -> torch.dtype | None:
    """The dtype for autocast, or None for float32; `auto` takes bfloat16 if the device is fast in it."""
    if precision == "float32":
        return None
    if precision == "bfloat16" or is_fast_in_bfloat16(device):
        return torch.bfloat16
    return None


def cast_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Cast what a model saves to `dtype`, in place, as `from_pretrained(dtype=...)` does.

    Buffers that are computed from the configuration keep their precision: `model.to(dtype)` would round the frequencies of
    rotary positions too, by up to 0.2% in bfloat16, and at position 512 the largest angle can be off by a radian.
    """
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if name not in module._non_persistent_buffers_set and buffer.is_floating_point():
                setattr(module, name, buffer.to(dtype))


@contextmanager
def deterministic_kernels(wanted: bool) -> Iterator[None]:
    """If `wanted`, a GPU uses deterministic kernels inside the block (PyTorch's notes on reproducibility).

    Not for sampling: cumulative sums have no deterministic kernel, and each row of them is added in a fixed order
    anyway.

    Raises:
        RuntimeError: the model uses an operation that has no deterministic kernel; torch names it.
    """
    if not wanted or not torch.cuda.is_available():
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic matrix products need it
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
