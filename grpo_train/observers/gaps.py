"""How far a reward model's praise runs ahead of the checker: the sign of over-optimisation that can be seen while it happens.

The gap is what the reward model's mean has gained since the first step less what the checker's has, each in standard deviations of its own
values at that step. It is 0 while both rise alike, and grows where the policy learns to please the model alone (Gao et al., arXiv
2210.10760: the proxy goes on rising when the gold score has turned).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from grpo_train.objective.advantages import Floats
from grpo_train.observers.observer import StepRecord


class Gaps:
    """Carries each objective's mean and deviation at the first step in which both it and the checker varied."""

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
        """Measured on what the step sampled; responses of the cache say nothing of what the policy gets now."""
        return self.measure(step.parts[~step.batch.is_old], step.objectives)

    def measure(self, parts: Floats, objectives: Sequence[str]) -> dict[str, float]:
        """{`gap/<reward model>`: gap} of a step's (N, K) parts, NaN for missing; from the second step that both vary in on."""
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
    """NaN and 0 where nothing is known."""
    known = column[~np.isnan(column)]
    return (float(known.mean()), float(known.std())) if known.size else (float("nan"), 0.0)
