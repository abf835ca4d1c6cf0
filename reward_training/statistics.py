"""Means with 95% intervals (percentile bootstrap over problems, Wilson), pass@k and maj@k."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from math import comb, sqrt

import numpy as np
from numpy.typing import NDArray

from configs.records import Estimate

Z_95 = 1.959963984540054
"""half-width of a normal distribution's 95% interval, in standard deviations"""


def bootstrap_mean(values: Sequence[float], *, seed: int, draws: int, confidence: float = 0.95) -> Estimate:
    """Mean of `values`, one for each problem, with its percentile bootstrap interval (Efron 1979).

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("a mean of no values is unknown; give at least one problem")
    array = np.asarray(values, dtype=np.float64)
    means = _resampled_means(array, seed=seed, draws=draws)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Estimate(estimate=float(array.mean()), low=float(low), high=float(high), n=len(array))


def _resampled_means(values: NDArray[np.float64], *, seed: int, draws: int) -> NDArray[np.float64]:
    indices = np.random.default_rng(seed).integers(0, len(values), size=(draws, len(values)))
    return np.asarray(values[indices].mean(axis=1))


def wilson_mean(values: Sequence[float]) -> Estimate:
    """Mean of values in [0, 1] with its 95% Wilson score interval (Wilson 1927).

    The interval keeps its width when a few values are all equal. A value between 0 and 1 counts as that part of a
    success.

    >>> all_of_three = wilson_mean([1.0, 1.0, 1.0])
    >>> round(all_of_three.low, 3), all_of_three.high
    (0.439, 1.0)

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("a mean of no values is unknown; give at least one")
    mean, n = sum(values) / len(values), len(values)
    low, high = wilson_interval(mean, n)
    return Estimate(estimate=mean, low=low, high=high, n=n)


def wilson_interval(share: float, n: int) -> tuple[float, float]:
    """(low, high) bounds of the 95% Wilson score interval of a `share` in [0, 1] that was observed on n trials."""
    centre = (share + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
    half = Z_95 / (1 + Z_95**2 / n) * sqrt(share * (1 - share) / n + Z_95**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def pass_at_k(num_samples: int, num_right: int, k: int) -> float:
    """Unbiased probability that at least one of k samples is right (Chen et al., arXiv 2107.03374, eq. 1).

    >>> pass_at_k(4, 1, 2)
    0.5

    Raises:
        ValueError: k is more than the number of samples.
    """
    if k > num_samples:
        raise ValueError(f"pass@{k} needs at least {k} samples, got {num_samples}")
    return 1.0 - comb(num_samples - num_right, k) / comb(num_samples, k)


def majority_is_right(answers: Sequence[Hashable], right: Sequence[bool]) -> float:
    """Whether the most frequent answer is right (maj@k): 1 or 0, or for a tie the share of tied answers that are right.

    Samples without an answer (None) do not vote. Without any answer the result is 0.

    >>> majority_is_right(["5", "5", "7", None], [True, True, False, False])
    1.0
    """
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return 0.0
    most = max(votes.values())
    winners = {answer for answer, num_votes in votes.items() if num_votes == most}
    verdict = {answer: is_right for answer, is_right in zip(answers, right, strict=True) if answer in winners}
    return sum(verdict.values()) / len(winners)
