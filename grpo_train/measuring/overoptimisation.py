"""Fits a reward as a function of the distance from the initial policy (Gao et al., arXiv 2210.10760).

With d = sqrt(KL(policy || initial)), the paper finds R(d) = d (alpha - beta log d) for reinforcement learning (section
3, "functional forms"). beta is small for the proxy reward but not for the gold score, so the gold score peaks at
d = exp(alpha / beta - 1). The paper sets R(0) = 0; here R(0) is fitted too, since rewards are not centred on the
initial policy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MIN_POINTS = 5
"""distinct distances that a fit of three unknowns needs"""


@dataclass(frozen=True)
class Fit:
    """R(d) = start + d (alpha - beta log d)."""

    start: float
    alpha: float
    beta: float

    def at(self, distance: float) -> float:
        """The reward at d = `distance` >= 0."""
        return self.start + (distance * (self.alpha - self.beta * math.log(distance)) if distance > 0 else 0.0)

    @property
    def turn(self) -> float | None:
        """The distance at which the reward peaks; None where it has no peak."""
        return math.exp(self.alpha / self.beta - 1) if self.beta > 0 else None


def fit(distances: Sequence[float], rewards: Sequence[float]) -> Fit | None:
    """Least-squares fit to points (d, R) with d > 0, in square roots of nats.

    None where there are fewer than MIN_POINTS distinct distances.
    """
    points = [(d, r) for d, r in zip(distances, rewards, strict=True) if d > 0]
    if len({d for d, _ in points}) < MIN_POINTS:
        return None
    d, r = (np.array(column) for column in zip(*points, strict=True))
    (start, alpha, beta), *_ = np.linalg.lstsq(np.stack([np.ones_like(d), d, -d * np.log(d)], axis=1), r, rcond=None)
    return Fit(float(start), float(alpha), float(beta))
