"""The policy gradient with a baseline that knows no groups."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from configs.schema.methods.method import ReinforceMethod
from grpo_train.methods.reinforce import Reinforce
from grpo_train.observers.observer import StepRecord
from grpo_train.updating.advantages import Scored
from tests.grpo_train.methods.kit import NAN, column, exact_gradient, mean_gradient, scored


def reinforce(baseline: str, **fields: Any) -> Reinforce:
    return Reinforce(ReinforceMethod.model_validate({"baseline": baseline} | fields))


def look(method: Reinforce, given: Scored) -> dict[str, float]:
    return method.look(cast(StepRecord, SimpleNamespace(advantages=method.advantages(given))))


def test_without_a_baseline_the_advantage_is_the_reward() -> None:
    result = reinforce("none").advantages(column(1, 1, 0, 0, group_size=2))
    assert result.values.tolist() == [1, 1, 0, 0]
    # a group whose rewards are equal teaches, unless they are all 0
    assert result.dead.tolist() == [False, True]


def test_the_mean_of_the_batch_is_subtracted_and_not_that_of_a_group() -> None:
    # mean (1 + 1 + 0 + 2) / 4 = 1
    result = reinforce("batch_mean").advantages(column(1, 1, 0, 2, group_size=2))
    assert result.values.tolist() == [0, 0, -1, 1]
    assert result.dead.tolist() == [True, False]


def test_rewards_are_weighted_sums_and_what_objectives_add_sums_to_the_advantage() -> None:
    # rewards 2 x 1 + 1 x 0.5 = 2.5 and 2 x 0 + 1 x 0.5 = 0.5, mean 1.5
    result = reinforce("batch_mean").advantages(scored([[1, 0.5], [0, 0.5]], 2, weights=[2, 1]))
    assert result.rewards.tolist() == [2.5, 0.5]
    assert result.values.tolist() == [1, -1]
    assert result.contributions.sum(axis=1) == pytest.approx(result.values)
    # an objective that is the same everywhere moves nothing
    assert result.contributions[:, 1].tolist() == [0, 0]


@pytest.mark.parametrize("baseline", ["none", "batch_mean", "moving_average"])
def test_a_response_without_a_score_moves_nothing_and_counts_in_no_mean(baseline: str) -> None:
    result = reinforce(baseline).advantages(column(1, NAN, 3, 2, group_size=2))
    alone = reinforce(baseline).advantages(column(1, 3, 2, group_size=1))
    assert result.values[[0, 2, 3]].tolist() == alone.values.tolist()
    assert result.values[1] == 0
    assert np.isnan(result.rewards[1])


def test_the_moving_average_is_that_of_the_steps_before() -> None:
    method = reinforce("moving_average", decay=0.75)
    # the first step has its own mean, 1
    assert method.advantages(column(0, 2, group_size=2)).values.tolist() == [-1, 1]
    assert look(method, column(0, 2, group_size=2)) == {"policy/baseline": 1}
    # the second that of the first, and then 0.75 x 1 + 0.25 x 5 = 2
    assert method.advantages(column(4, 6, group_size=2)).values.tolist() == [3, 5]
    assert look(method, column(4, 6, group_size=2)) == {"policy/baseline": 1}
    assert method.state() == {"average": 2}


def test_asking_for_advantages_twice_changes_no_average() -> None:
    method = reinforce("moving_average")
    look(method, column(0, 2, group_size=2))
    before = method.state()
    method.advantages(column(9, 9, group_size=2))
    assert method.state() == before


def test_a_step_without_a_score_leaves_the_average() -> None:
    method = reinforce("moving_average")
    look(method, column(NAN, NAN, group_size=2))
    assert method.state() == {"average": None}
    look(method, column(1, 3, group_size=2))
    assert look(method, column(NAN, NAN, group_size=2)) == {"policy/baseline": 2}
    assert method.state() == {"average": 2}


@pytest.mark.parametrize("baseline", ["none", "moving_average"])
def test_the_gradient_has_no_bias(baseline: str) -> None:
    """The mean over all batches of a policy over three actions is the gradient of the expected reward, exactly."""
    probabilities, rewards = np.random.default_rng(0).dirichlet(np.ones(3)), np.array([1.0, 2.0, 4.0])
    method = reinforce(baseline)
    method.average = 7.0
    mean = mean_gradient(method, probabilities, rewards, group_size=1)
    assert mean == pytest.approx(exact_gradient(probabilities, rewards), abs=1e-12)


def test_the_mean_of_the_batch_shortens_the_gradient_by_a_response() -> None:
    """As above, with batches of two: a half of it, (N - 1) / N."""
    probabilities, rewards = np.array([0.2, 0.5, 0.3]), np.array([1.0, 2.0, 4.0])
    mean = mean_gradient(reinforce("batch_mean"), probabilities, rewards, group_size=1)
    assert mean == pytest.approx(exact_gradient(probabilities, rewards) / 2, abs=1e-12)
