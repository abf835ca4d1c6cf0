"""Counts the token positions that forward passes compute, and how many of them are padding."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Positions:
    """Number of positions that forward passes computed."""

    computed: int = 0
    padding: int = 0
    """the part of `computed` that held no token"""

    def add(self, computed: int, real: int) -> None:
        """Count a forward pass over `computed` positions, `real` of which held a token."""
        self.computed += computed
        self.padding += computed - real
