"""The result of training one round's policy, apart from the weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TrainResult:
    """All results but the weights. Defaults stand for fields that an older version did not write."""

    num_updates: int = 0
    stopped_by: str | None = None
    """message of the watch rule that ended training early; None where none did"""
    is_budget_spent: bool = False
    """whether training spent its budget"""
    advantage_share: dict[str, float] = field(default_factory=dict)
    """each objective's share of the summed absolute contributions to the round's advantages"""
    tokens: dict[str, int] = field(default_factory=dict)
    """number of tokens in each class of the token ledger, and of `computed` and `padding` positions"""
    curriculum: dict[str, Any] = field(default_factory=dict)
    """epoch and pass rates from which the next round's problem picker goes on"""
    rolled_back_to: int | None = None
    """step of the checkpoint whose weights were restored at the end; None where no watch rule rolled back"""
    extra_rounds: int = 0
    """number of rounds that the watch rule which ended training may add to the run"""
    untrained: str | None = None
    """why the policy is the one that the round began with, where it is"""
    known: list[dict[str, Any]] = field(default_factory=list)
    """known tokens (`sampling.vllm.known`) as the trained policy scores them; none where no server wrote"""
