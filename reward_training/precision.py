"""Where bfloat16 arithmetic is fast. Weights stay float32; autocast does the products."""

from __future__ import annotations

from typing import Literal

import torch


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
