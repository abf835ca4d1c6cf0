"""Results on disk, a file a case: a benchmark that was broken off goes on with the cases that are missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch

from configs.disk.files import write_json
from reward_training.transformer.precision import has_bfloat16, pick_device

FOLDER = Path("build/benchmarks")


def kept(case: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `measure` found for `case`, now or in an earlier call; remove build/benchmarks to measure anew."""
    path = FOLDER / f"{case}.json"
    if not path.exists():
        print(f"measuring {case}", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, measure() | {"machine": machine()})
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    device = pick_device()
    return {
        "cores": psutil.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if device.type == "cuda" else None,
        "has_bfloat16": has_bfloat16(device),
        "torch": torch.__version__,
    }


def table(header: list[str], rows: list[list[str]]) -> str:
    """Of Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
