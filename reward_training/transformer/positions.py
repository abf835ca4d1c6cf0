"""How much of what forward passes computed held a token."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Positions:
    """What forward passes computed, in token positions."""

    computed: int = 0
    padding: int = 0
    """of `computed`, those that held no token"""

    def add(self, computed: int, real: int) -> None:
        """A forward pass over `computed` positions, `real` of which held a token."""
        self.computed += computed
        self.padding += computed - real
