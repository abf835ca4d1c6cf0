"""Which device and which arithmetic."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

import torch


def pick_device() -> torch.device:
    """The first GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast_dtype(precision: Literal["auto", "bfloat16", "float32"], device: torch.device) -> torch.dtype | None:
    """The low precision to compute in, or None for float32; `auto` takes bfloat16 where the hardware multiplies in it."""
    if precision == "float32":
        return None
    if precision == "bfloat16" or _multiplies_bfloat16(device.type):
        return torch.bfloat16
    return None


@cache
def _multiplies_bfloat16(device_type: str) -> bool:
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    cpu_info = Path("/proc/cpuinfo")
    flags = cpu_info.read_text() if cpu_info.exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags
