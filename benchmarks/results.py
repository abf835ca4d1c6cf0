"""Stores benchmark results on disk, one file per case, so that an interrupted benchmark can be continued."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch

from configs.disk.files import write_json
from reward_training.transformer.precision import is_fast_in_bfloat16, pick_device

FOLDER = Path("build/benchmarks")


def kept(case: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The stored result of `case`; `measure` is called if there is none. Remove build/benchmarks to measure again."""
    path = FOLDER / f"{case}.json"
    if not path.exists():
        print(f"measuring {case}", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, measure() | {"machine": machine()})
    result: dict[str, Any] = json.loads(path.read_bytes())
    return result


def machine() -> dict[str, Any]:
    """Hardware and torch version of this machine."""
    device = pick_device()
    return {
        "cores": psutil.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if device.type == "cuda" else None,
        "is_fast_in_bfloat16": is_fast_in_bfloat16(device),
        "torch": torch.__version__,
    }


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
