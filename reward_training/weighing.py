"""Weights of the objectives at one point of a run, and the weighted total of a response."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from configs.schema.rewards import Floor, RewardConfig, WeightSchedule


@dataclass(frozen=True)
class Weighing:
    """Weights and floors, keyed by objective name."""

    weights: dict[str, float]
    floors: Mapping[str, Floor] = field(default_factory=dict)

    @classmethod
    def at(cls, rewards: Sequence[RewardConfig], round_index: int, step: int | None = None) -> Self:
        """The weights at `step` of the round's training, from 1; None is its end, after all schedules over steps."""
        weights = {reward.name: reward.weight * factor(reward.schedule, round_index, step) for reward in rewards}
        return cls(weights, {reward.name: reward.floor for reward in rewards if reward.floor is not None})

    def total(self, parts: Mapping[str, float | None]) -> float:
        """Weighted sum of the parts that are not None. A part below its floor limits the total to that floor's cap."""
        known = {name: part for name, part in parts.items() if part is not None}
        total = sum(self.weights[name] * part for name, part in known.items())
        caps = [f.cap for name, f in self.floors.items() if name in known and known[name] < f.below]
        return min([total, *caps])

    def columns(self, names: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(K,) weights and (K, 2) floors, [below, cap] or NaN for an objective without one, in the order of `names`."""
        floors = [self.floors.get(name) for name in names]
        rows = [[np.nan, np.nan] if floor is None else [floor.below, floor.cap] for floor in floors]
        return np.array([self.weights[name] for name in names]), np.array(rows, dtype=np.float64).reshape(len(names), 2)


def factor(schedule: WeightSchedule | None, round_index: int, step: int | None) -> float:
    """Factor on a weight: linear interpolation of the schedule's points, constant outside; 1 without a schedule."""
    if schedule is None:
        return 1.0
    positions, factors = zip(*schedule.points, strict=True)
    position = round_index if schedule.over == "rounds" else step
    return float(factors[-1] if position is None else np.interp(position, positions, factors))
