"""What the training of one round's policy came to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TrainResult:
    """Everything but the weights. A field that an older version did not write has its default."""

    num_updates: int = 0
    stopped_by: str | None = None
    """the watch rule that ended training early"""
    advantage_share: dict[str, float] = field(default_factory=dict)
    """each objective's share of all advantages of the round"""
    tokens: dict[str, int] = field(default_factory=dict)
    """tokens of each class of the token ledger, and `computed` and `padding` positions"""
    curriculum: dict[str, Any] = field(default_factory=dict)
    """what the next round's picker of problems goes on from"""
    rolled_back_to: int | None = None
    """the step whose weights were taken in the end, where a watch rule asked for that"""
    extra_rounds: int = 0
    """how many rounds the rule that ended training may add to the run"""
