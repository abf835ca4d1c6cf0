"""The policy imitates its best response to each problem."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from configs.schema.methods.method import BestOfNMethod
from grpo_train.methods.best_of_n import BestOfN
from tests.grpo_train.methods.kit import NAN, column, scored
from tests.grpo_train.updating.test_learner import learner, logprobs_of, written_by


def best_of_n(min_score: float | None = None) -> BestOfN:
    return BestOfN(BestOfNMethod(min_score=min_score))


def test_the_best_of_each_group_is_kept_and_the_first_of_equal_ones() -> None:
    result = best_of_n().advantages(column(0, 2, 2, 1, 1, 1, group_size=3))
    assert result.values.tolist() == [0, 1, 0, 1, 0, 0]
    assert best_of_n().in_loss(result).tolist() == [False, True, False, True, False, False]


def test_a_best_response_that_is_not_over_the_minimum_is_no_example() -> None:
    result = best_of_n(min_score=1).advantages(column(1, 0, 1.5, 0, group_size=2))
    assert result.values.tolist() == [0, 0, 1, 0]
    assert result.dead.tolist() == [True, False]


def test_a_response_without_a_score_is_never_the_best() -> None:
    result = best_of_n().advantages(column(NAN, -3, NAN, NAN, group_size=2))
    assert result.values.tolist() == [0, 1, 0, 0]
    assert result.dead.tolist() == [False, True]


def test_objectives_share_the_advantage_of_what_is_kept() -> None:
    # 2 x 1 and 1 x 0.5 of 2.5
    result = best_of_n().advantages(scored([[1, 0.5], [0, 0.5]], 2, weights=[2, 1]))
    assert result.contributions.tolist() == [[0.8, 0.2], [0, 0]]


def test_its_gradient_is_that_of_supervised_fine_tuning_on_what_is_kept(tiny: Any) -> None:
    """The mean of -log p over the tokens of the kept responses."""
    model, _ = tiny
    completions = written_by(model)
    advantages = best_of_n().advantages(column(1, 0, 0, 1, 2, 3, 0, 0, group_size=2))
    kept = best_of_n().in_loss(advantages)
    chosen = [one for one, is_kept in zip(completions, kept, strict=True) if is_kept]
    model.zero_grad()
    logprobs = [logprobs_of(model, list(one.prompt_ids), list(one.token_ids)) for one in chosen]
    (-torch.cat(logprobs).mean()).backward()
    wanted = torch.cat([weight.grad.flatten() for weight in model.parameters()])
    model.zero_grad()
    trained = learner(model, loss="dapo")
    trained._apply = lambda: 0.0  # type: ignore[method-assign]  # keeps the gradient
    trained.update(chosen, advantages.kept(kept))
    found = torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])
    assert found == pytest.approx(wanted, abs=1e-6)
    assert float(wanted.norm()) > 0.1
