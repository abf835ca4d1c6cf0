"""Which device, in which arithmetic, and whether it repeats to the bit. Weights stay float32; autocast does the products."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch


def pick_device() -> torch.device:
    """The first GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies in bfloat16: an NVIDIA GPU since Ampere, a CPU with avx512_bf16 or AMX."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False


def autocast(device: torch.device, precision: Literal["auto", "float32"] = "auto") -> torch.autocast:
    """bfloat16 autocast where the device has it, unless `precision` is float32: then a context that does nothing."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "auto" and has_bfloat16(device))


def autocast_dtype(precision: Literal["auto", "bfloat16", "float32"], device: torch.device) -> torch.dtype | None:
    """The low precision to compute in, or None for float32; `auto` takes bfloat16 where the hardware multiplies in it."""
    if precision == "float32":
        return None
    if precision == "bfloat16" or has_bfloat16(device):
        return torch.bfloat16
    return None


@contextmanager
def deterministic_kernels(wanted: bool) -> Iterator[None]:
    """A GPU takes kernels that add up in a fixed order, where `wanted` (PyTorch's notes on reproducibility).

    Not for sampling: its cumulative sums have no such kernel, and row by row they are in a fixed order anyway.

    Raises:
        RuntimeError: the model does something that no deterministic kernel is known for; torch names it.
    """
    if not wanted or not torch.cuda.is_available():
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # torch refuses to multiply deterministically without
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
