import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from grpo_train.groups import alike
from grpo_train.updating.advantages import group_advantages

ONE = np.array([1.0])
NAN = float("nan")


def column(*rewards: float) -> np.ndarray:
    return np.array(rewards, dtype=np.float64)[:, None]


def test_advantage_is_distance_from_mean_over_std_with_bessels_correction():
    # mean 0.5, std sqrt((0.25 * 4) / 3) = 0.57735
    result = group_advantages(column(1, 0, 0, 1), ONE, 4)
    expected = 0.5 / (math.sqrt(1 / 3) + 1e-4)
    assert result.values == pytest.approx([expected, -expected, -expected, expected])


def test_groups_are_normalised_apart():
    result = group_advantages(column(1, 0, 100, 0), ONE, 2)
    unit = 0.5 / (math.sqrt(0.5) + 1e-4)
    assert result.values[:2] == pytest.approx([unit, -unit])
    assert result.values[2] == pytest.approx(50 / (math.sqrt(5000) + 1e-4))


def test_group_with_equal_rewards_has_zero_advantage():
    result = group_advantages(column(0.1 + 0.2, 0.3, 0.3, 0.3), ONE, 4)
    assert result.dead.tolist() == [True]
    assert result.values.tolist() == [0.0] * 4


def test_one_part_in_a_thousand_under_the_floor_is_dead_and_over_it_alive():
    rewards = column(1, 1, 1, 1.001)
    assert group_advantages(rewards, ONE, 4, spread_floor=0.01).dead.tolist() == [True]
    assert group_advantages(rewards, ONE, 4, spread_floor=1e-6).dead.tolist() == [False]


def test_a_missing_part_takes_the_mean_of_its_group():
    # objective 1 scored 1 and 0, so the missing one is 0.5; objective 2 is equal everywhere: sums 2, 1, 1.5
    parts = np.array([[1, 1], [0, 1], [NAN, 1]])
    result = group_advantages(parts, np.array([1.0, 1.0]), 3)
    assert result.rewards.tolist() == [2.0, 1.0, 1.5]
    assert result.values == pytest.approx([0.5 / (0.5 + 1e-4), -0.5 / (0.5 + 1e-4), 0.0])


def test_an_objective_that_nobody_scored_adds_nothing():
    parts = np.array([[1, NAN], [0, NAN]])
    alone = group_advantages(column(1, 0), ONE, 2)
    assert group_advantages(parts, np.array([1.0, 9.0]), 2).values.tolist() == alone.values.tolist()


def test_a_completion_without_any_part_stays_out_of_mean_and_std():
    parts = column(1, 0, NAN)
    result = group_advantages(parts, ONE, 3)
    alone = group_advantages(column(1, 0), ONE, 2)
    assert result.values.tolist() == [*alone.values.tolist(), 0.0]
    assert math.isnan(result.rewards[2])


@settings(deadline=None)
@given(
    reward=st.floats(-1e3, 1e3),
    weights=st.lists(st.floats(-2, 2), min_size=3, max_size=3),
    missing=st.lists(st.booleans(), min_size=12, max_size=12),
    order=st.sampled_from(["sum_then_normalize", "normalize_then_sum"]),
)
def test_equal_rows_have_zero_advantage_whatever_is_missing(reward, weights, missing, order):
    parts = np.full((4, 3), reward)
    parts[np.array(missing).reshape(4, 3)] = NAN
    result = group_advantages(parts, np.array(weights), 4, order=order)
    assert result.values.tolist() == [0.0] * 4


@settings(deadline=None)
@given(
    rewards=st.lists(st.floats(-10, 10), min_size=8, max_size=8),
    order=st.sampled_from(["sum_then_normalize", "normalize_then_sum"]),
)
def test_advantages_sum_to_zero_in_each_group_and_contributions_to_the_advantage(rewards, order):
    parts = np.array(rewards).reshape(4, 2)
    result = group_advantages(parts, np.array([1.0, 0.5]), 2, order=order)
    assert result.values.reshape(2, 2).sum(axis=1) == pytest.approx([0, 0], abs=1e-9)
    assert result.contributions.sum(axis=1) == pytest.approx(result.values)


def test_shares_are_each_objectives_part_of_the_absolute_contributions():
    # centred: objective 1 +-0.5, objective 2 weighted +-0.25: two thirds and one third
    parts = np.array([[1, 1], [0, 0]])
    assert group_advantages(parts, np.array([1.0, 0.5]), 2).shares == pytest.approx([2 / 3, 1 / 3])


def test_normalise_then_sum_tells_apart_what_the_sum_confounds():
    """GDPO, arXiv 2601.05242, figure 2: (1, 0) and (0, 1) sum alike, but objective 2 is the rarer."""
    parts = np.array([[1, 0], [1, 0], [1, 0], [0, 1]], dtype=float)
    weights = np.array([1.0, 1.0])
    assert group_advantages(parts, weights, 4).dead.tolist() == [True]
    rarer = np.array([[1, 0], [1, 0], [0, 1], [0, 0]], dtype=float)
    summed = group_advantages(rarer, weights, 4)
    apart = group_advantages(rarer, weights, 4, order="normalize_then_sum")
    assert summed.values[0] == pytest.approx(summed.values[2])
    assert apart.values[2] > apart.values[0] + 0.1


def test_without_scale_the_advantage_is_the_distance_from_the_groups_mean():
    """Dr. GRPO, arXiv 2503.20783."""
    result = group_advantages(column(1, 0, 0.1, 0), ONE, 2, scale="none")
    assert result.values == pytest.approx([0.5, -0.5, 0.05, -0.05])


def test_batch_scale_keeps_a_small_spread_small():
    # all four rewards: mean 0.275, squares sum 0.525625 + 0.075625 + 0.030625 + 0.075625 = 0.7075
    std = math.sqrt(0.7075 / 3) + 1e-4
    batch = group_advantages(column(1, 0, 0.1, 0), ONE, 2, scale="batch")
    assert batch.values == pytest.approx([0.5 / std, -0.5 / std, 0.05 / std, -0.05 / std])
    group = group_advantages(column(1, 0, 0.1, 0), ONE, 2)
    assert group.values[2] == pytest.approx(group.values[0], rel=2e-3)


def test_rows_that_are_no_whole_groups_are_refused():
    with pytest.raises(ValueError, match="whole groups"):
        group_advantages(column(1, 2, 3), ONE, 2)


def test_leave_one_out_compares_each_reward_with_the_mean_of_the_others():
    """RLOO, arXiv 2402.14740: the others of the first are 0, 0, 1 with mean 1/3, those of the second 1, 0, 1."""
    result = group_advantages(column(1, 0, 0, 1), ONE, 4, scale="none", baseline="leave_one_out")
    assert result.values == pytest.approx([2 / 3, -2 / 3, -2 / 3, 2 / 3])


def test_leave_one_out_passes_over_what_nothing_scored_and_gives_a_single_scored_row_nothing():
    result = group_advantages(column(3, 1, NAN, 7, NAN, NAN), ONE, 3, scale="none", baseline="leave_one_out")
    assert result.values.tolist() == [2.0, -2.0, 0.0, 0.0, 0.0, 0.0]


NO_FLOOR = [NAN, NAN]


def test_a_row_under_a_floor_is_worth_no_more_than_the_cap_and_the_floor_bears_it():
    # answer and safety, weights 1 and 0.5; sums 1.5, 1.1, 0.4, 0.2; the second row is unsafe, so 0.3
    parts = np.array([[1.0, 1.0], [1.0, 0.2], [0.0, 0.8], [0.0, 0.4]])
    floors = np.array([NO_FLOOR, [0.3, 0.3]])
    result = group_advantages(parts, np.array([1.0, 0.5]), 4, scale="none", floors=floors)
    sums = np.array([1.5, 0.3, 0.4, 0.2])
    assert result.rewards == pytest.approx(sums)
    assert result.values == pytest.approx(sums - sums.mean())
    assert result.contributions[:, 0] == pytest.approx([0.5, 0.5, -0.5, -0.5])  # the answer's part is as it was
    assert result.contributions.sum(axis=1) == pytest.approx(result.values)


def test_a_cap_never_raises_a_sum():
    result = group_advantages(column(-1.0, -2.0, 0.5, 0.1), ONE, 4, scale="none", floors=np.array([[0.0, 0.0]]))
    assert result.rewards == pytest.approx([-1.0, -2.0, 0.5, 0.1])


def test_two_floors_cap_at_the_lower_cap():
    parts = np.array([[0.1, 0.1, 1.0], [0.9, 0.1, 1.0]])
    floors = np.array([[0.5, 0.4], [0.5, 0.2], NO_FLOOR])
    result = group_advantages(parts, np.ones(3), 2, scale="none", floors=floors)
    assert result.rewards == pytest.approx([0.2, 0.2])
    assert result.dead.tolist() == [True]


@given(
    st.lists(st.booleans(), min_size=8, max_size=8),
    st.floats(-2, 2),
    st.floats(-2, 2),
    st.floats(-1, 1),
    st.floats(-1, 1),
)
@example([False] * 7 + [True], 0.0, 0.99, 0.99, 0.0).via("the mean of three 0.99 rounds to a number under 0.99")
def test_equal_rows_have_zero_advantage_whatever_is_missing_and_whatever_the_floors(missing, a, b, below, cap):
    parts = np.array([[a, NAN if is_missing else b] for is_missing in missing])
    floors = np.array([NO_FLOOR, [below, cap]])
    result = group_advantages(parts, np.array([0.7, 0.3]), 4, floors=floors)
    assert result.values.tolist() == [0.0] * 8
    assert np.isfinite(result.rewards).all()


def test_the_batchs_std_is_that_of_the_groups_that_the_same_rewards_score():
    # sums of the first two groups are 0 and 1, those of the last two 0 and 100: stds sqrt(1/3) and sqrt(10000/3)
    parts = np.array(
        [[0, NAN], [1, NAN], [1, NAN], [0, NAN], [NAN, 0], [NAN, 100], [NAN, 100], [NAN, 0]], dtype=np.float64
    )
    kinds = np.array([1, 1, 2, 2])
    apart = group_advantages(parts, np.ones(2), 2, scale="batch", alike=kinds)
    small, large = 0.5 / (math.sqrt(1 / 3) + 1e-4), 50 / (math.sqrt(10000 / 3) + 1e-4)
    assert apart.values == pytest.approx([-small, small, small, -small, -large, large, large, -large])
    alone = group_advantages(parts[:4], np.ones(2), 2, scale="batch")
    assert apart.values[:4].tolist() == alone.values.tolist()  # as if the others were not in the batch
    mixed = group_advantages(parts, np.ones(2), 2, scale="batch")
    assert abs(mixed.values[:4]).max() < 0.02


def test_normalise_then_sum_divides_by_the_std_of_the_groups_that_the_same_rewards_score():
    both = np.array([[0, 0], [1, 1], [1, 0], [0, 1]], dtype=np.float64)  # one group agrees with itself, one does not
    one = np.array([[NAN, 0], [NAN, 1], [NAN, 1], [NAN, 0]])
    kinds = np.array([3, 3, 2, 2])
    apart = group_advantages(np.concatenate([both, one]), np.ones(2), 2, order="normalize_then_sum", alike=kinds)
    for rows, parts in ((slice(0, 4), both), (slice(4, 8), one)):
        assert (
            apart.values[rows].tolist()
            == group_advantages(parts, np.ones(2), 2, order="normalize_then_sum").values.tolist()
        )


def test_groups_are_alike_where_the_same_weighted_objectives_apply():
    applies = np.array([[1, 1, 0], [1, 1, 0], [1, 0, 0], [1, 0, 0], [1, 0, 1], [1, 0, 1]], dtype=np.bool_)
    first, second, third = alike(applies, np.array([1.0, 1.0, 0.0]), 2).tolist()
    assert first != second == third  # the third objective only measures
    assert alike(np.zeros((0, 3), dtype=np.bool_), np.ones(3), 1).tolist() == []
    assert alike(applies, np.zeros(3), 2).tolist() == [0, 0, 0]
