"""What each objective weighs at one time of a run, and what a response is worth in all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from configs.schema.rewards import Floor, RewardConfig, WeightSchedule


@dataclass(frozen=True)
class Weighing:
    """Weights and floors by the objective's name."""

    weights: dict[str, float]
    floors: Mapping[str, Floor] = field(default_factory=dict)

    @classmethod
    def at(cls, rewards: Sequence[RewardConfig], round_index: int, step: int | None = None) -> Self:
        """Of `step` of the round's training, counting from 1; None is its end, where schedules over steps are through."""
        weights = {reward.name: reward.weight * factor(reward.schedule, round_index, step) for reward in rewards}
        return cls(weights, {reward.name: reward.floor for reward in rewards if reward.floor is not None})

    def total(self, parts: Mapping[str, float | None]) -> float:
        """The weighted sum of the known parts, at most the cap of each floor that a known part is under."""
        known = {name: part for name, part in parts.items() if part is not None}
        total = sum(self.weights[name] * part for name, part in known.items())
        caps = [f.cap for name, f in self.floors.items() if name in known and known[name] < f.below]
        return min([total, *caps])

    def columns(self, names: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(K,) weights and (K, 2) floors, [below, cap] or NaN where there is none, in the order of `names`."""
        floors = [self.floors.get(name) for name in names]
        rows = [[np.nan, np.nan] if floor is None else [floor.below, floor.cap] for floor in floors]
        return np.array([self.weights[name] for name in names]), np.array(rows, dtype=np.float64).reshape(len(names), 2)


def factor(schedule: WeightSchedule | None, round_index: int, step: int | None) -> float:
    """What a weight is multiplied by: on straight lines between the schedule's points, constant outside; 1 without one."""
    if schedule is None:
        return 1.0
    places, factors = zip(*schedule.points, strict=True)
    place = round_index if schedule.over == "rounds" else step
    return float(factors[-1] if place is None else np.interp(place, places, factors))
