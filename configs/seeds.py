"""Derives the seed of every random draw from a hash of its purpose, round, step and index.

The draws at a step therefore do not depend on earlier draws, and a resumed run repeats those of an uninterrupted one.
"""

from __future__ import annotations

import hashlib

import numpy as np


def seed_for(run_seed: int, purpose: str, *, round_index: int = 0, step: int = 0, index: int = 0) -> int:
    """The 63-bit seed of one draw: the first 8 bytes of the sha256 of all arguments, without the lowest bit.

    >>> seed_for(0, "sample", round_index=1) == seed_for(0, "sample", round_index=1)
    True
    >>> seed_for(0, "sample", round_index=1) == seed_for(0, "sample", round_index=2)
    False
    """
    text = f"{run_seed}/{purpose}/{round_index}/{step}/{index}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def rng_for(run_seed: int, purpose: str, *, round_index: int = 0, step: int = 0, index: int = 0) -> np.random.Generator:
    """A numpy generator seeded by `seed_for`."""
    return np.random.default_rng(seed_for(run_seed, purpose, round_index=round_index, step=step, index=index))
