import math

import numpy as np
import pytest

from grpo_train.measuring.overoptimisation import MIN_POINTS, Fit, fit


def test_points_on_the_curve_give_it_back():
    true = Fit(start=0.3, alpha=1.2, beta=0.5)
    distances = [0.2, 0.5, 1.0, 2.0, 3.0, 5.0]
    found = fit(distances, [true.at(d) for d in distances])
    assert found is not None
    assert (found.start, found.alpha, found.beta) == pytest.approx((0.3, 1.2, 0.5))


def test_the_reward_turns_where_its_slope_is_zero():
    curve = Fit(start=0.0, alpha=1.2, beta=0.5)
    turn = curve.turn
    assert turn == pytest.approx(math.exp(1.2 / 0.5 - 1))
    slope = (curve.at(turn + 1e-5) - curve.at(turn - 1e-5)) / 2e-5
    assert slope == pytest.approx(0.0, abs=1e-6)
    assert Fit(0.0, 1.0, -0.1).turn is None


def test_values_by_hand():
    assert Fit(0.5, 2.0, 1.0).at(0.0) == 0.5
    assert Fit(0.5, 2.0, 1.0).at(math.e) == pytest.approx(0.5 + math.e * (2 - 1))


def test_noise_moves_the_fit_little():
    generator, true = np.random.default_rng(0), Fit(0.0, 1.0, 0.4)
    distances = np.linspace(0.1, 6, 200)
    found = fit(distances.tolist(), [true.at(d) + generator.normal(0, 0.05) for d in distances])
    assert found is not None
    assert found.turn == pytest.approx(true.turn, rel=0.05)


def test_too_few_different_distances_say_nothing():
    assert fit([1.0] * 20, [0.5] * 20) is None
    assert fit([0.0, 0.0, 1.0, 2.0, 3.0, 4.0], [0.0] * 6) is None  # a distance of 0 is no point of the curve
    assert fit(list(range(1, MIN_POINTS + 1)), [1.0] * MIN_POINTS) is not None
