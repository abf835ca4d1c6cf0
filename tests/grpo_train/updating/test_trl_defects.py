"""What TRL 1.16's GRPOTrainer gets wrong, as claims about this project. The numbers in the docstrings are TRL's.

Elsewhere: that too few problems are refused with numbers and that no problem is dropped is in test_curriculum.py; that an
evaluation leaves the rollouts of training alone is in tests/tasks/test_prefect_tasks.py.
"""

import numpy as np
import pytest

from configs.records import Completion
from configs.schema.grpo import GrpoConfig
from grpo_train.groups import left_out, without
from grpo_train.updating.advantages import group_advantages

NAN = float("nan")
TWO = np.array([1.0, 1.0])


def make_completion(finish_reason: str) -> Completion:
    return Completion(
        problem_key="k",
        index=0,
        prompt_ids=[1],
        token_ids=[2],
        text="",
        finish_reason=finish_reason,
        logprobs=[-1.0],
        policy_id="p",
        step=1,
        seed=0,
    )


@pytest.mark.parametrize("order", ["sum_then_normalize", "normalize_then_sum"])
def test_a_judge_that_timed_out_once_moves_nobody_in_a_group_of_equals(order):
    """A missing value counted as 0 gave +0.5, -1.5, +0.5, +0.5."""
    parts = np.array([[1, 1], [1, NAN], [1, 1], [1, 1]])
    result = group_advantages(parts, TWO, 4, order=order)
    assert result.values.tolist() == [0.0] * 4
    assert result.dead.tolist() == [True]


def test_noise_in_a_reward_is_not_blown_up_to_an_advantage():
    """Rewards 1, 1, 1, 1.001 gave -0.42 to +1.25 after division by the group's own std."""
    rewards = np.array([[1], [1], [1], [1.001], [1], [0], [1], [0]])
    result = group_advantages(rewards, np.ones(1), 4, spread_floor=0.01)
    assert result.values[:4].tolist() == [0.0] * 4
    assert result.dead.tolist() == [True, False]


@pytest.mark.parametrize(
    "how", [{"scale": "group"}, {"scale": "batch"}, {"scale": "none"}, {"order": "normalize_then_sum"}], ids=str
)
def test_dead_groups_are_told_whatever_the_rewards_are_divided_by(how):
    """The batch's std was looked at instead of the group's, so that of two groups here none or both were dead."""
    parts = np.array([[0.1 + 0.2, 1], [0.3, 1], [1, 0], [0, 0]])
    result = group_advantages(parts, TWO, 2, **how)
    assert result.dead.tolist() == [True, False]
    assert result.values[:2].tolist() == [0.0, 0.0]
    assert result.values[2] > 0


def test_a_truncated_response_that_is_left_out_does_not_shape_its_group():
    """Masked from the loss alone, the truncated 0 still pulled the mean that the others are compared with to 0.5."""
    reasons = ["stop", "stop", "length", "stop"]
    group = [make_completion(reason) for reason in reasons]
    truncated = left_out(group, GrpoConfig(truncated="leave_out"))
    rewards = np.array([[1], [0], [0], [1]])
    result = group_advantages(without(rewards, truncated), np.ones(1), 4, scale="none")
    # mean of 1, 0, 1
    assert result.values == pytest.approx([1 / 3, -2 / 3, 0.0, 1 / 3])
