"""Intervals of a gain over seeds and problems."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from tasks.comparing.intervals import over_seeds, over_seeds_and_problems, t_quantile
from tasks.comparing.result import Gain


def test_the_quantiles_are_those_of_students_t() -> None:
    for degrees in range(1, 60):
        assert t_quantile(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=1e-9)


def test_the_interval_over_seeds_is_students() -> None:
    """Gains 0.1, 0.2, 0.3: mean 0.2, std 0.1, and t(2) = 4.30265, so 0.2 +- 4.30265 x 0.1 / sqrt(3) = 0.2 +- 0.248414."""
    found = over_seeds([0.1, 0.2, 0.3])
    assert found is not None
    assert (found.estimate, found.n) == (pytest.approx(0.2), 3)
    assert (found.low, found.high) == (pytest.approx(-0.048414, abs=1e-6), pytest.approx(0.448414, abs=1e-6))


def test_one_seed_says_nothing_of_others() -> None:
    assert over_seeds([0.1]) is None


def test_equal_gains_have_no_spread() -> None:
    found = over_seeds_and_problems(np.full((3, 5), 0.25), seed=0, draws=100)
    assert (found.estimate, found.low, found.high, found.n) == (0.25, 0.25, 0.25, 15)


def _by_resampling(gains: np.ndarray, draws: int) -> tuple[float, float]:
    """The same interval, drawing rows and columns one draw after the other."""
    rng = np.random.default_rng(1)
    seeds, problems = gains.shape
    means = [
        gains[np.ix_(rng.integers(0, seeds, seeds), rng.integers(0, problems, problems))].mean() for _ in range(draws)
    ]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def test_the_bootstrap_draws_seeds_and_problems_each_by_itself() -> None:
    gains = np.random.default_rng(0).normal(size=(4, 1)) + np.random.default_rng(1).normal(size=(4, 30))
    found = over_seeds_and_problems(gains, seed=0, draws=20_000)
    assert (found.low, found.high) == pytest.approx(_by_resampling(gains, 20_000), abs=0.03)
    assert found.estimate == pytest.approx(gains.mean())


def test_what_all_problems_share_within_a_seed_widens_the_interval() -> None:
    """A gain of +1 with one seed and -1 with the other: over problems alone nothing would vary, and all draws of two seeds do."""
    gains = np.repeat([[1.0], [-1.0]], 50, axis=1)
    found = over_seeds_and_problems(gains, seed=0, draws=2000)
    assert (found.estimate, found.low, found.high) == pytest.approx((0.0, -1.0, 1.0))


def test_gains_on_no_problems_are_refused() -> None:
    with pytest.raises(ValueError, match="no problems is unknown"):
        over_seeds_and_problems(np.zeros((2, 0)), seed=0, draws=10)


@pytest.mark.parametrize(
    ("gains", "shown"),
    [
        (np.full((2, 8), 0.5), True),
        (np.full((2, 8), -0.5), True),
        (np.full((1, 8), 0.5), False),  # one seed says nothing of others
        # both over 0 with certainty over these two seeds and problems, and t(1) = 12.7 spans 0
        (np.repeat([[0.1], [0.5]], 8, axis=1), False),
    ],
)
def test_a_difference_is_shown_where_no_interval_holds_0(gains: np.ndarray, shown: bool) -> None:
    both = over_seeds_and_problems(gains, seed=0, draws=200)
    gain = Gain(over_seeds_and_problems=both, over_seeds=over_seeds(list(gains.mean(axis=1))))
    assert not both.low <= 0 <= both.high
    assert gain.is_shown == shown
    assert math.isfinite(both.low)
