"""REINFORCE with the mean of the group's other rewards as baseline."""

from __future__ import annotations

import numpy as np
import pytest

from configs.schema.rewards import CombinationConfig
from grpo_train.methods.rloo import Rloo
from tests.grpo_train.methods.kit import NAN, column, exact_gradient, mean_gradient

RLOO = Rloo(CombinationConfig())


def test_each_response_is_compared_with_the_others_of_its_group() -> None:
    # 3 - (1 + 2) / 2, 1 - (3 + 2) / 2, 2 - (3 + 1) / 2; equal rewards are dead
    result = RLOO.advantages(column(3, 1, 2, 5, 5, 5, group_size=3))
    assert result.values.tolist() == pytest.approx([1.5, -1.5, 0, 0, 0, 0])
    assert result.dead.tolist() == [False, True]


def test_a_missing_score_is_no_other() -> None:
    result = RLOO.advantages(column(3, 1, NAN, group_size=3))
    assert result.values.tolist() == [2, -2, 0]


def test_the_gradient_has_no_bias() -> None:
    """The mean over all groups of two of a policy over three actions is the gradient of the expected reward, exactly."""
    probabilities, rewards = np.array([0.2, 0.5, 0.3]), np.array([1.0, 2.0, 4.0])
    mean = mean_gradient(RLOO, probabilities, rewards, group_size=2)
    assert mean == pytest.approx(exact_gradient(probabilities, rewards), abs=1e-12)
