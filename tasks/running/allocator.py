"""What glibc does with the memory of freed arrays while a stage trains: keep it for the next ones, or give it back."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
DEFAULT_THRESHOLD = 128 * 1024
KEEP = 2**31 - 1
GIVE_BACK = 256 * 1024


@contextmanager
def reused_memory() -> Iterator[None]:
    """Reuse the memory of large freed arrays inside the block, and give it back to the system at the end.

    By default glibc maps every array over 32 MB anew and unmaps it when it is freed, so that each of its pages is
    faulted in and zeroed again: 15 to 20% of an update on a CPU. With a C library other than glibc this does nothing.
    """
    with _thresholds(KEEP):
        yield


@contextmanager
def returned_memory() -> Iterator[None]:
    """Give the memory of each large array back to the system as soon as it is freed.

    This is for ranks that split a model. They gather and free weights of many sizes between arrays that stay, and torch
    asks for aligned memory: up to its version 2.37 glibc does not find a freed piece for an aligned array of the same size
    again (https://sourceware.org/bugzilla/show_bug.cgi?id=14581), and what it keeps grows to twice what is in use.
    """
    with _thresholds(GIVE_BACK):
        yield


def give_back_free_memory() -> None:
    """Give back to the system what glibc keeps of freed arrays; with another C library this does nothing."""
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)


@contextmanager
def _thresholds(num_bytes: int) -> Iterator[None]:
    """Map arrays from this size on, and give back free memory at the end of the heap from this size on."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt") or not hasattr(library, "malloc_trim"):
        yield
        return
    library.mallopt(M_MMAP_THRESHOLD, num_bytes)
    library.mallopt(M_TRIM_THRESHOLD, num_bytes)
    try:
        yield
    finally:
        library.mallopt(M_MMAP_THRESHOLD, DEFAULT_THRESHOLD)
        library.mallopt(M_TRIM_THRESHOLD, DEFAULT_THRESHOLD)
        library.malloc_trim(0)
