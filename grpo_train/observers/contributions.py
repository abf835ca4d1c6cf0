"""Sums each objective's absolute contributions to the advantages over a training: what moved the policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from grpo_train.observers.observer import StepRecord
from grpo_train.updating.advantages import Advantages


class Contributions:
    """Keeps a sum for each objective; `shares` are reported at the end of the training."""

    def __init__(self, objectives: Sequence[str]) -> None:
        self.sums = dict.fromkeys(objectives, 0.0)

    def look(self, step: StepRecord) -> dict[str, float]:
        """Add the step's contributions to the sums; returns no metrics, for the step's reward metrics have them."""
        self.add(step.advantages)
        return {}

    def add(self, advantages: Advantages) -> None:
        for name, value in zip(self.sums, np.abs(advantages.contributions).sum(axis=0), strict=True):
            self.sums[name] += float(value)

    @property
    def shares(self) -> dict[str, float]:
        """Each objective's share of the total."""
        total = max(sum(self.sums.values()), 1e-12)
        return {name: value / total for name, value in self.sums.items()}

    def state(self) -> dict[str, Any]:
        return {"sums": self.sums}

    def restore(self, state: dict[str, Any]) -> None:
        self.sums = dict(state["sums"])
