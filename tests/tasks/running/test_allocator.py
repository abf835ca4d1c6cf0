from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch

from tasks.running.allocator import returned_memory, reused_memory

MIB = 2**20


class _Counts(ctypes.Structure):
    """`struct mallinfo2` of malloc.h"""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    ]


def kept_mib(memory: Callable[[], AbstractContextManager[None]]) -> float:
    """Free memory that the allocator holds more than before, after arrays between others that stay were freed."""
    library = ctypes.CDLL(None)
    library.mallinfo2.restype = _Counts
    with memory():
        before = library.mallinfo2().fordblks
        stay = []
        for _ in range(20):
            freed = torch.empty(3 * MIB, dtype=torch.uint8)
            stay.append(torch.empty(MIB, dtype=torch.uint8))
            del freed
        return float(library.mallinfo2().fordblks - before) / MIB


# both set glibc's thresholds, and do nothing on another C library; only glibc from 2.33 on tells what it holds
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="only glibc from 2.33 on tells what it holds")
def test_memory_of_freed_arrays_is_given_back_or_kept() -> None:
    assert kept_mib(returned_memory) < 1
    assert kept_mib(reused_memory) > 2
