"""Which device and which arithmetic."""

from __future__ import annotations

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
