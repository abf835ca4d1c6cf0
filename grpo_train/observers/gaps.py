"""Measures how far a reward model runs ahead of the checker: a sign of over-optimisation during training.

The gap is the reward model's gain in mean since the first step minus the checker's gain, each in standard deviations of
its own values at that step. It stays at 0 while both rise alike, and grows where the policy learns to please the reward
model alone (Gao et al., arXiv 2210.10760: the proxy goes on rising after the gold score has turned). Both means are over the
responses that the reward model scores and whose problem has a checker.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from grpo_train.observers.observer import StepRecord
from grpo_train.updating.advantages import Bools, Floats

CHECKER = "the checker"
"""stands for each problem's own; no reward can have this name"""


class Gaps:
    """Keeps each reward model's and the checker's mean and standard deviation at the first step where both varied."""

    def __init__(self, models: Sequence[str]) -> None:
        self.models = list(models)
        self.first: dict[str, dict[str, tuple[float, float]]] = {}

    def state(self) -> dict[str, Any]:
        return {"first": self.first}

    def restore(self, state: dict[str, Any]) -> None:
        self.first = {
            model: {  # earlier versions wrote the name of the one checker that a run had
                name if name == model else CHECKER: (float(mean), float(std)) for name, (mean, std) in both.items()
            }
            for model, both in state["first"].items()
        }

    def look(self, step: StepRecord) -> dict[str, float]:
        """Measures on the responses sampled at this step; cached ones do not show what the current policy scores."""
        new = ~step.batch.is_old
        checked, has_checker = step.checked
        return self.measure(step.parts[new], step.objectives, checked[new], (step.applies & has_checker[:, None])[new])

    def measure(self, parts: Floats, objectives: Sequence[str], checked: Floats, applies: Bools) -> dict[str, float]:
        """{`gap/<reward model>`: gap} for a step's (N, K) parts and (N,) values by the checker, NaN for missing ones.

        `applies` (N, K) is True where the objective and a checker apply. There are no gaps up to the first step in
        which both vary, which the later ones are measured from.
        """
        gaps = {}
        for model in self.models:
            column = objectives.index(model)
            rows = applies[:, column]
            both = {model: _mean_and_std(parts[rows, column]), CHECKER: _mean_and_std(checked[rows])}
            if model in self.first:
                gains = {name: (both[name][0] - mean) / std for name, (mean, std) in self.first[model].items()}
                if all(np.isfinite(gain) for gain in gains.values()):
                    gaps[f"gap/{model}"] = gains[model] - gains[CHECKER]
            elif all(std > 0 for _, std in both.values()):
                self.first[model] = both
        return gaps


def _mean_and_std(column: Floats) -> tuple[float, float]:
    """(mean, standard deviation) of the known values; (NaN, 0) where there are none."""
    known = column[~np.isnan(column)]
    return (float(known.mean()), float(known.std())) if known.size else (float("nan"), 0.0)
