"""Which device, which arithmetic, and whether it repeats to the bit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from reward_training.precision import has_bfloat16


def pick_device() -> torch.device:
    """The first GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


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
