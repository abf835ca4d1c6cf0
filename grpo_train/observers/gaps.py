"""Measures how far a reward model runs ahead of the checker: a sign of over-optimisation during training.

The gap is the reward model's gain in mean since the first step minus the checker's gain, each in standard deviations of
its own values at that step. It stays at 0 while both rise alike, and grows where the policy learns to please the reward
model alone (Gao et al., arXiv 2210.10760: the proxy goes on rising after the gold score has turned).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from grpo_train.observers.observer import StepRecord
from grpo_train.updating.advantages import Floats


class Gaps:
    """Keeps each reward model's and the checker's mean and standard deviation at the first step where both varied."""

    def __init__(self, models: Sequence[str], checker: str) -> None:
        self.models, self.checker = list(models), checker
        self.first: dict[str, dict[str, tuple[float, float]]] = {}

    def state(self) -> dict[str, Any]:
        return {"first": self.first}

    def restore(self, state: dict[str, Any]) -> None:
        self.first = {
            model: {name: (float(values[0]), float(values[1])) for name, values in both.items()}
            for model, both in state["first"].items()
        }

    def look(self, step: StepRecord) -> dict[str, float]:
        """Measures on the responses sampled at this step; cached ones do not show what the current policy scores."""
        return self.measure(step.parts[~step.batch.is_old], step.objectives)

    def measure(self, parts: Floats, objectives: Sequence[str]) -> dict[str, float]:
        """{`gap/<reward model>`: gap} for a step's (N, K) parts, NaN for missing ones.

        There are no gaps up to the first step in which both vary, which the later ones are measured from.
        """
        if self.checker not in objectives:
            return {}
        gaps = {}
        for model in self.models:
            both = {name: _mean_and_std(parts[:, objectives.index(name)]) for name in (model, self.checker)}
            if model in self.first:
                gains = {name: (both[name][0] - mean) / std for name, (mean, std) in self.first[model].items()}
                if all(np.isfinite(gain) for gain in gains.values()):
                    gaps[f"gap/{model}"] = gains[model] - gains[self.checker]
            elif all(std > 0 for _, std in both.values()):
                self.first[model] = both
        return gaps


def _mean_and_std(column: Floats) -> tuple[float, float]:
    """(mean, standard deviation) of the known values; (NaN, 0) where there are none."""
    known = column[~np.isnan(column)]
    return (float(known.mean()), float(known.std())) if known.size else (float("nan"), 0.0)
