"""Every random draw has a seed of its own: a hash of what it is for. What happens at a step then does not depend on
whether the process died before it."""

from __future__ import annotations

import hashlib

import numpy as np


def seed_for(run_seed: int, purpose: str, *, round_index: int = 0, step: int = 0, index: int = 0) -> int:
    """A 63-bit seed for one purpose at one place of a run.

    >>> seed_for(0, "sample", round=1) == seed_for(0, "sample", round=1)
    True
    >>> seed_for(0, "sample", round=1) == seed_for(0, "sample", round=2)
    False
    """
    text = f"{run_seed}/{purpose}/{round_index}/{step}/{index}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def rng_for(run_seed: int, purpose: str, *, round_index: int = 0, step: int = 0, index: int = 0) -> np.random.Generator:
    """A numpy generator seeded by `seed_for`."""
    return np.random.default_rng(seed_for(run_seed, purpose, round_index=round_index, step=step, index=index))
