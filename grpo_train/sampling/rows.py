"""How responses are sampled, and the rows that are being written."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Sampling:
    """How responses are sampled; top_p and top_k are off by default, temperature 0 is greedy."""

    group_size: int
    temperature: float
    max_response_length: int
    top_p: float = 1.0
    top_k: int = 0
    max_rows: int = 128
    num_greedy: int = 0
    """number of responses per problem, the first ones, that are greedy whatever the temperature"""
    sought: frozenset[str] = frozenset()
    """texts that rewards look for: special tokens among them stay in the text of responses"""

    def is_greedy(self, index: int) -> bool:
        """Whether a problem's response `index` is greedy."""
        return self.temperature == 0 or index < self.num_greedy


@dataclass
class Row:
    """A response that is being generated."""

    problem: int
    index: int
    uniforms: np.ndarray
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: str = "length"
    has_ended: bool = False
