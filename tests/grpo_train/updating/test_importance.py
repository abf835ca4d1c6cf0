"""Importance weights of what a server wrote: exact numbers, and what they do to an update."""

import math

import numpy as np
import pytest
import torch

from configs.schema.grpo import GrpoConfig, VllmConfig
from grpo_train.updating.loss import BatchSize, importance_weights, policy_loss
from tests.grpo_train.updating.test_learner import advantages, learner, written_by

TRAINER = torch.log(torch.tensor([[0.5, 0.6, 0.1], [0.2, 0.3, 0.9]]))
SERVER = torch.log(torch.tensor([[0.25, 0.1, 0.4], [0.4, 0.3, 0.9]]))
WRITTEN = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])


def settings(**given):
    return VllmConfig.model_validate(given)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        # 0.5 / 0.25 = 2; 6 over the bound; padding; 0.5, 1, 1
        ({"max_importance_weight": 3.0}, [[2, 3, 1], [0.5, 1, 1]]),
        ({"max_importance_weight": 3.0, "min_importance_weight": 0.8}, [[2, 3, 1], [0.8, 1, 1]]),
        ({"max_importance_weight": 3.0, "min_importance_weight": 0.8, "beyond": "mask"}, [[2, 0, 1], [0, 1, 1]]),
        # 2 x 6 = 12 for the first response, 0.5 x 1 x 1 for the second
        ({"max_importance_weight": 20.0, "importance": "sequence"}, [[12, 12, 1], [0.5, 0.5, 0.5]]),
        ({"max_importance_weight": 4.0, "importance": "sequence"}, [[4, 4, 1], [0.5, 0.5, 0.5]]),
        (
            {"max_importance_weight": 4.0, "min_importance_weight": 0.6, "importance": "sequence", "beyond": "mask"},
            [[0, 0, 1], [0, 0, 0]],
        ),
    ],
)
def test_weights_are_bounded_or_masked_by_token_or_response(given, expected):
    found = importance_weights(TRAINER, SERVER, WRITTEN, settings(**given))
    torch.testing.assert_close(found.values, torch.tensor(expected, dtype=torch.float32))


def test_what_is_beyond_the_bounds_is_told_apart_from_what_is_on_them():
    found = importance_weights(
        TRAINER, SERVER, WRITTEN, settings(max_importance_weight=2.5, min_importance_weight=0.75)
    )
    assert found.too_high.tolist() == [[False, True, False], [False, False, False]]
    assert found.too_low.tolist() == [[False, False, False], [True, False, False]]


def test_a_product_that_overflows_is_bounded_like_any_other():
    long = torch.zeros(1, 400), torch.full((1, 400), -1.0)
    found = importance_weights(*long, torch.ones(1, 400), settings(importance="sequence", beyond="clip"))
    assert found.values.unique().tolist() == [2.0]
    masked = importance_weights(*long, torch.ones(1, 400), settings(importance="sequence", beyond="mask"))
    assert masked.values.unique().tolist() == [0.0]


def test_a_weight_scales_the_surrogate_of_its_token_and_not_the_kl_term():
    grpo = GrpoConfig(group_size=2, batch_size=2, kl_coefficient=0.5, kl_estimator="k2")
    logprobs, mask = torch.tensor([[-1.0, -2.0]]), torch.ones(1, 2)
    loss = policy_loss(
        logprobs, torch.tensor([3.0]), mask, grpo=grpo, size=BatchSize(1, 2),
        reference_logprobs=torch.tensor([[-2.0, -2.0]]), weights=torch.tensor([[2.0, 0.5]]),
    )  # fmt: skip
    # -(2 x 3 + 0.5 x 3) / 2 + 0.5 x (1/2 + 0) / 2
    assert loss.value.item() == pytest.approx(-3.75 + 0.125)


def shifted(completions, shift):
    return [c.model_copy(update={"logprobs": [value + shift for value in c.logprobs]}) for c in completions]


@pytest.mark.parametrize(("shift", "factor"), [(0.1, np.exp(-0.1)), (-0.1, np.exp(0.1)), (-5.0, 2.0)])
def test_a_server_that_is_off_by_a_factor_is_made_up_for_up_to_the_bound(tiny, shift, factor):
    model, _ = tiny
    completions = written_by(model)
    exact = learner(model).update(completions, advantages())
    weighted = learner(model, vllm={"max_importance_weight": 2.0}).update(shifted(completions, shift), advantages())
    assert weighted["policy/grad_norm"] == pytest.approx(exact["policy/grad_norm"] * factor, rel=1e-3)
    assert weighted["policy/sampler_mismatch"] == pytest.approx(abs(shift), rel=1e-3)
    assert weighted["policy/importance_weight"] == pytest.approx(factor, rel=1e-3)
    assert weighted["policy/importance_too_high"] == float(shift == -5)
    assert weighted["policy/importance_too_low"] == 0


def test_a_masked_batch_moves_nothing(tiny):
    model, _ = tiny
    off = shifted(written_by(model), -5.0)
    metrics = learner(model, vllm={"beyond": "mask"}).update(off, advantages())
    assert (metrics["policy/grad_norm"], metrics["policy/importance_weight"]) == (0.0, 0.0)


def test_with_several_updates_the_ratio_is_to_the_trainers_own_start_and_the_weight_stays(tiny):
    """The clip range would else be used up by the server's rounding: with the server's log-probabilities in the ratio,
    0.3 off is beyond 1 + 0.2 for each token of a good response."""
    model, _ = tiny
    completions = shifted(written_by(model), -0.3)
    metrics = learner(model, vllm={"max_importance_weight": 10.0}, updates_per_batch=2).update(
        completions, advantages()
    )
    assert metrics["policy/clip_fraction"] == 0.0
    assert metrics["policy/importance_weight"] == pytest.approx(math.exp(0.3), rel=1e-3)
    assert metrics["policy/sampler_mismatch"] == pytest.approx(0.3, rel=1e-3)
