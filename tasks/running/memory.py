"""How much memory this process takes while a stage trains a policy, and how many models it holds for that.

Both are the stage's and not the process's, which may have worked on other stages and runs before: models that were held when
the stage began are not counted, and the peak is reset where that is possible, and otherwise unknown. On a CPU it is the
resident memory of the whole process, libraries included; on a GPU it is what torch's tensors take there.
"""

from __future__ import annotations

import gc
from pathlib import Path

import torch

from reward_training.transformer.loading.weights import models_held
from reward_training.transformer.precision import pick_device
from tasks.running.allocator import give_back_free_memory

RESET, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")  # Linux, proc(5)
RESET_PEAK, PEAK = "5", "VmHWM:"
KIB_A_MIB, BYTES_A_MIB = 1024, 2**20


class Memory:
    """Measures from where it is made."""

    def __init__(self) -> None:
        if models_held():  # in cycles of what an earlier stage left, and no part of this one's peak
            gc.collect()
            give_back_free_memory()
        self._models_before = models_held()
        self._is_on_gpu = pick_device().type == "cuda"
        self._is_reset = _reset_on_gpu() if self._is_on_gpu else _reset_resident()
        self._highest = 0.0

    def metrics(self) -> dict[str, float]:
        """`memory/models` now, and `memory/peak_mib` up to now where it is known."""
        models = {"memory/models": float(len(models_held() - self._models_before))}
        peak = (_peak_on_gpu() if self._is_on_gpu else _peak_resident()) if self._is_reset else None
        if peak is None:
            return models
        # Linux tells the peak by counters that are a little behind, and may fall
        self._highest = max(self._highest, peak)
        return models | {"memory/peak_mib": self._highest}


def _reset_on_gpu() -> bool:
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call] # otherwise nothing was allocated yet
        torch.cuda.reset_peak_memory_stats()
    return True


def _peak_on_gpu() -> float:
    """MiB of the largest amount that tensors took on this process's GPU."""
    return torch.cuda.max_memory_allocated() / BYTES_A_MIB


def _reset_resident() -> bool:
    """Whether Linux set the process's peak to what is resident now; other systems, and some containers, cannot."""
    try:
        RESET.write_text(RESET_PEAK, encoding="ascii")
    except OSError:
        return False
    return True


def _peak_resident() -> float | None:
    """MiB of the largest resident set since the reset; None where the system does not tell it."""
    lines = STATUS.read_text(encoding="utf-8").splitlines()
    kib = next((int(line.split()[1]) for line in lines if line.startswith(PEAK)), None)
    return None if kib is None else kib / KIB_A_MIB
