"""Weights of the objectives at one point of a run, and the weighted total of a response."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from configs.schema.rewards import Floor, RewardConfig


@dataclass(frozen=True)
class Weighing:
    """Weights and floors, keyed by objective name."""

    weights: dict[str, float]
    floors: Mapping[str, Floor] = field(default_factory=dict)

    @classmethod
    def at(cls, rewards: Sequence[RewardConfig], round_index: int, step: int | None = None) -> Self:
        """The weights at `step` of the round's training, from 1; None is its end, after all schedules over steps."""
        weights = {reward.name: reward.weight_at(round_index, step) for reward in rewards}
        return cls(weights, {reward.name: reward.floor for reward in rewards if reward.floor is not None})

    def total(self, parts: Mapping[str, float | None]) -> float:
        """Weighted sum of the parts that are not None. A part below its floor limits the total to that floor's cap."""
        known = {name: part for name, part in parts.items() if part is not None}
        total = sum(self.weights[name] * part for name, part in known.items())
        caps = [f.cap for name, f in self.floors.items() if name in known and known[name] < f.below]
        return min([total, *caps])

    def known_total(self, parts: Mapping[str, float | None]) -> float | None:
        """The same; None where a reward that has a weight or a floor could not score the response, or none scored it."""
        missing = {name for name, part in parts.items() if part is None}
        is_known = len(missing) < len(parts) and not any(self.weights.get(k) or k in self.floors for k in missing)
        return self.total(parts) if is_known else None

    def columns(self, names: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(K,) weights and (K, 2) floors, [below, cap] or NaN for an objective without one, in the order of `names`."""
        floors = [self.floors.get(name) for name in names]
        rows = [[np.nan, np.nan] if floor is None else [floor.below, floor.cap] for floor in floors]
        return np.array([self.weights[name] for name in names]), np.array(rows, dtype=np.float64).reshape(len(names), 2)
