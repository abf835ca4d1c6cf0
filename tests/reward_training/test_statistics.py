import numpy as np
import pytest

from reward_training.statistics import bootstrap_mean, majority_is_right, pass_at_k


def test_bootstrap_interval_agrees_with_the_normal_one_on_many_values():
    values = [1.0] * 30 + [0.0] * 70
    estimate = bootstrap_mean(values, seed=0, draws=20000)
    half = 1.96 * np.sqrt(0.3 * 0.7 / 100)
    assert estimate.estimate == 0.3
    assert estimate.low == pytest.approx(0.3 - half, abs=0.011)
    assert estimate.high == pytest.approx(0.3 + half, abs=0.011)
    assert estimate.n == 100


def test_bootstrap_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(300):
        estimate = bootstrap_mean(rng.normal(size=60).tolist(), seed=trial, draws=500)
        covered += estimate.low <= 0 <= estimate.high
    assert 0.90 <= covered / 300 <= 0.98


def test_a_mean_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no values"):
        bootstrap_mean([], seed=0, draws=10)


@pytest.mark.parametrize(
    ("num_right", "k", "expected"),
    [(0, 1, 0.0), (1, 1, 0.25), (1, 2, 0.5), (2, 2, 1 - 1 / 6), (1, 4, 1.0), (4, 1, 1.0), (3, 2, 1.0)],
)
def test_pass_at_k_counts_the_ways_to_draw_only_wrong_ones(num_right, k, expected):
    assert pass_at_k(4, num_right, k) == pytest.approx(expected)


def test_pass_at_more_than_there_are_samples_is_refused():
    with pytest.raises(ValueError, match="at least 8"):
        pass_at_k(4, 1, 8)


def test_majority():
    assert majority_is_right(["5", "5", "7"], [True, True, False]) == 1.0
    assert majority_is_right(["5", "7", "7"], [True, False, False]) == 0.0
    assert majority_is_right(["5", "7"], [True, False]) == 0.5
    assert majority_is_right([None, None], [False, False]) == 0.0
