"""Intervals of a gain that was measured with several seeds on the same problems."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from configs.records import Estimate

Floats = NDArray[np.float64]


def over_seeds_and_problems(gains: Floats, *, seed: int, draws: int) -> Estimate:
    """Mean of `gains`, (S, P) of S seeds on P problems, with its 95% percentile bootstrap interval; n is S x P.

    Seeds and problems are drawn with replacement, each by itself, so that both kinds of chance are in the interval (the
    pigeonhole bootstrap, Owen, arXiv 0712.1111). With few seeds it is too narrow; `over_seeds` is not. With one seed it is
    the interval over problems.

    Raises:
        ValueError: there are no gains.
    """
    if not gains.size:
        raise ValueError("a gain on no problems is unknown; give at least one seed and problem")
    rng = np.random.default_rng(seed)
    num_seeds, num_problems = gains.shape
    of_seeds = rng.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), size=draws) / num_seeds
    of_problems = rng.multinomial(num_problems, np.full(num_problems, 1 / num_problems), size=draws) / num_problems
    means = ((of_seeds @ gains) * of_problems).sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(estimate=float(gains.mean()), low=float(low), high=float(high), n=gains.size)


def over_seeds(gains: Sequence[float]) -> Estimate | None:
    """Mean of one gain a seed with Student's 95% interval, mean +- t(S - 1) std / sqrt(S); None for fewer than two seeds.

    It says what other seeds would do on these problems.
    """
    count = len(gains)
    if count < 2:
        return None
    mean = float(np.mean(gains))
    half = t_quantile(count - 1) * float(np.std(gains, ddof=1)) / math.sqrt(count)
    return Estimate(estimate=mean, low=mean - half, high=mean + half, n=count)


def t_quantile(degrees: int) -> float:
    """The 97.5% quantile of Student's t, by halving an interval of angles, since t = sqrt(degrees) tan(angle).

    >>> round(t_quantile(1), 3), round(t_quantile(2), 3)
    (12.706, 4.303)
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _share_within(middle, degrees) < 0.95 else (low, middle)
    return math.sqrt(degrees) * math.tan((low + high) / 2)


def _share_within(angle: float, degrees: int) -> float:
    """P(|T| < sqrt(degrees) tan(angle)) for whole degrees of freedom (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    cosine, is_odd = math.cos(angle), degrees % 2
    term = total = (cosine if degrees > 1 else 0.0) if is_odd else 1.0
    for k in range(2 + is_odd, degrees - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    return 2 / math.pi * (angle + math.sin(angle) * total) if is_odd else math.sin(angle) * total
