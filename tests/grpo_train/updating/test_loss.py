"""The losses against hand-worked numbers; test_loss_reference.py has the float64 reference, test_against_trl.py TRL's."""

import math
from typing import get_args

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from configs.schema.grpo import GrpoConfig
from grpo_train.updating.loss import BatchSize, k3, kl_estimate, policy_loss

LOSSES = list(get_args(GrpoConfig.model_fields["loss"].annotation))
GRPO = GrpoConfig()


def whole(mask: torch.Tensor) -> BatchSize:
    return BatchSize(len(mask), int(mask.sum()))


def test_on_policy_loss_is_minus_the_advantage_with_the_gradient_of_the_logprob():
    logprobs = torch.tensor([[-1.0, -2.0], [-3.0, -4.0]], requires_grad=True)
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    loss = policy_loss(logprobs, torch.tensor([2.0, -1.0]), mask, grpo=GRPO, size=whole(mask))
    loss.value.backward()
    # ratio 1 everywhere: (-2 + 1) / 2; each token weighs advantage / tokens of its row / responses
    assert loss.value.item() == pytest.approx(-0.5)
    assert logprobs.grad.tolist() == [[-0.5, -0.5], [0.5, 0.0]]


@pytest.mark.parametrize(
    ("name", "value", "gradient"),
    [
        # advantages 2 (2 tokens) and -1 (1 token): the mean over 3 tokens is (-2 - 2 + 1) / 3
        ("dapo", -1.0, [[-2 / 3, -2 / 3], [1 / 3, 0]]),
        ("bnpo", -1.0, [[-2 / 3, -2 / 3], [1 / 3, 0]]),
        # divided by 2 responses of at most 4 tokens: (-2 - 2 + 1) / 8
        ("dr_grpo", -0.375, [[-0.25, -0.25], [0.125, 0]]),
        ("gspo", -0.5, [[-0.5, -0.5], [0.5, 0]]),
        # the value is that of -A lp: (2 * 1 + 2 * 2 - 1 * 3) / 3
        ("cispo", 1.0, [[-2 / 3, -2 / 3], [1 / 3, 0]]),
    ],
)
def test_on_policy_the_losses_differ_in_their_mean_alone(name, value, gradient):
    logprobs = torch.tensor([[-1.0, -2.0], [-3.0, -4.0]], requires_grad=True)
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    grpo = GrpoConfig(loss=name, max_response_length=4)
    loss = policy_loss(logprobs, torch.tensor([2.0, -1.0]), mask, grpo=grpo, size=whole(mask))
    loss.value.backward()
    assert loss.value.item() == pytest.approx(value)
    assert logprobs.grad.numpy() == pytest.approx(np.array(gradient))


def test_ratios_beyond_the_clip_range_have_no_gradient_where_the_advantage_pushes_on():
    old = torch.zeros(4, 1)
    logprobs = torch.log(torch.tensor([[1.5], [1.5], [0.5], [0.5]])).requires_grad_()
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0])
    loss = policy_loss(logprobs, advantages, torch.ones(4, 1), grpo=GRPO, size=BatchSize(4, 4), old_logprobs=old)
    loss.value.backward()
    # min(1.5, 1.2), min(-1.5, -1.2), min(0.5, 0.8), min(-0.5, -0.8)
    assert loss.value.item() == pytest.approx(-(1.2 - 1.5 + 0.5 - 0.8) / 4)
    assert (loss.clipped_low.item(), loss.clipped_high.item()) == (1, 1)
    assert logprobs.grad.flatten().tolist() == pytest.approx([0.0, 1.5 / 4, -0.5 / 4, 0.0])


def test_clip_range_high_raises_the_upper_bound_alone():
    logprobs = torch.log(torch.tensor([[1.25], [1.5], [0.7]])).requires_grad_()
    advantages = torch.tensor([1.0, 1.0, -1.0])
    grpo = GrpoConfig(clip_range=0.2, clip_range_high=0.28)
    loss = policy_loss(
        logprobs, advantages, torch.ones(3, 1), grpo=grpo, size=BatchSize(3, 3), old_logprobs=torch.zeros(3, 1)
    )
    loss.value.backward()
    # 1.25 is inside, 1.5 is cut to 1.28, 0.7 is raised to 0.8
    assert loss.value.item() == pytest.approx(-(1.25 + 1.28 - 0.8) / 3)
    assert (loss.clipped_low.item(), loss.clipped_high.item()) == (1, 1)
    assert logprobs.grad.flatten().tolist() == pytest.approx([-1.25 / 3, 0.0, 0.0])


def test_dual_clip_bounds_the_ratio_of_a_negative_advantage():
    logprobs = torch.log(torch.tensor([[2.5], [5.0]])).requires_grad_()
    loss = policy_loss(
        logprobs,
        torch.tensor([-1.0, -1.0]),
        torch.ones(2, 1),
        grpo=GrpoConfig(dual_clip=3.0),
        size=BatchSize(2, 2),
        old_logprobs=torch.zeros(2, 1),
    )
    loss.value.backward()
    # max(-2.5, -3), max(-5, -3)
    assert loss.value.item() == pytest.approx((2.5 + 3.0) / 2)
    assert (loss.clipped_low.item(), loss.clipped_high.item()) == (0, 1)
    assert logprobs.grad.flatten().tolist() == pytest.approx([2.5 / 2, 0.0])


def test_gspo_clips_a_whole_response_by_the_geometric_mean_of_its_ratios():
    # ratios 4 and 1: geometric mean 2, over 1.2, so both tokens are clipped; 1.21 and 1 have 1.1, so neither is
    logprobs = torch.log(torch.tensor([[4.0, 1.0], [1.21, 1.0]])).requires_grad_()
    mask = torch.ones(2, 2)
    loss = policy_loss(
        logprobs,
        torch.ones(2),
        mask,
        grpo=GrpoConfig(loss="gspo"),
        size=whole(mask),
        old_logprobs=torch.zeros(2, 2),
    )
    loss.value.backward()
    assert loss.value.item() == pytest.approx(-(1.2 + 1.1) / 2)
    assert loss.clipped_high.item() == 2
    assert logprobs.grad.flatten().tolist() == pytest.approx([0.0, 0.0, -1.1 / 4, -1.1 / 4])


def test_cispo_keeps_the_gradient_of_a_clipped_token_with_its_bounded_weight():
    logprobs = torch.log(torch.tensor([[5.0], [0.1]])).requires_grad_()
    loss = policy_loss(
        logprobs,
        torch.ones(2),
        torch.ones(2, 1),
        grpo=GrpoConfig(loss="cispo", clip_range_high=1.0),
        size=BatchSize(2, 2),
        old_logprobs=torch.zeros(2, 1),
    )
    loss.value.backward()
    assert logprobs.grad.flatten().tolist() == pytest.approx([-2.0 / 2, -0.1 / 2])
    assert (loss.clipped_low.item(), loss.clipped_high.item()) == (0, 1)


def test_kl_estimates_have_schulmans_values_and_their_own_gradients():
    # d = reference - policy = log 2: k1 -log 2, k2 (log 2)^2 / 2, k3 2 - log 2 - 1; gradients -d, -d, 1 - exp(d)
    d = math.log(2)
    for name, value, gradient in [("k1", -d, -d), ("k2", d * d / 2, -d), ("k3", 1 - d, -1.0)]:
        logprobs = torch.tensor([[-1.0]], requires_grad=True)
        estimate = kl_estimate(logprobs, torch.tensor([[-1.0 + d]]), torch.ones(1, 1), name)
        estimate.sum().backward()
        assert estimate.item() == pytest.approx(value)
        assert logprobs.grad.item() == pytest.approx(gradient)


@pytest.mark.parametrize(("name", "is_reverse"), [("k1", True), ("k2", True), ("k3", False)])
def test_the_expected_gradient_of_a_kl_estimate_is_that_of_the_direction_it_names(name, is_reverse):
    """Over a vocabulary of 4 the expectation is a sum: k1, k2 give grad KL(policy || reference), k3 the other."""
    logits = torch.tensor([0.3, -1.0, 0.8, 0.1], dtype=torch.float64, requires_grad=True)
    reference = torch.log_softmax(torch.tensor([1.0, 0.2, -0.5, 0.0], dtype=torch.float64), 0)
    logprobs = torch.log_softmax(logits, 0)
    mask = torch.ones(1, 4, dtype=torch.float64)
    estimates = kl_estimate(logprobs[None], reference[None], mask, name)
    (expected,) = torch.autograd.grad((logprobs.exp().detach() * estimates).sum(), logits, retain_graph=True)
    p, q = (logprobs, reference) if is_reverse else (reference, logprobs)
    (exact,) = torch.autograd.grad((p.exp() * (p - q)).sum(), logits)
    assert expected.numpy() == pytest.approx(exact.numpy(), abs=1e-12)


def test_the_kl_term_has_its_coefficient_and_is_reported_as_k3():
    reference = torch.tensor([[-1.0 + math.log(2)]])
    for name, value in [("k1", -math.log(2)), ("k3", 1 - math.log(2))]:
        loss = policy_loss(
            torch.tensor([[-1.0]]),
            torch.tensor([0.0]),
            torch.ones(1, 1),
            grpo=GrpoConfig(kl_coefficient=0.5, kl_estimator=name),
            size=BatchSize(1, 1),
            reference_logprobs=reference,
        )
        assert loss.value.item() == pytest.approx(0.5 * value)
        assert loss.kl_sum.item() == pytest.approx(1 - math.log(2))
    assert k3(torch.tensor([[-1.0]]), reference, torch.ones(1, 1)).item() == pytest.approx(1 - math.log(2))


@pytest.mark.parametrize("name", LOSSES)
def test_padding_changes_nothing_even_where_it_would_overflow(name):
    grpo = GrpoConfig(loss=name, kl_coefficient=0.1)
    results = []
    for width in (1, 2):
        logprobs = torch.tensor([[-1.0, 500.0]])[:, :width].requires_grad_()
        loss = policy_loss(
            logprobs,
            torch.tensor([1.0]),
            torch.tensor([[1.0, 0.0]])[:, :width],
            grpo=grpo,
            size=BatchSize(1, 1),
            old_logprobs=torch.tensor([[-1.1, -500.0]])[:, :width],
            reference_logprobs=torch.tensor([[-1.3, -math.inf]])[:, :width],
        )
        loss.value.backward()
        results.append((loss.value.item(), logprobs.grad[0, 0].item(), loss.kl_sum.item()))
    assert results[0] == results[1]
    assert logprobs.grad[0, 1] == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"clip_range": 0.3, "clip_range_high": 0.2}, r"clip_range_high=0.2 is under clip_range=0.3"),
        ({"dual_clip": 1.2}, r"dual_clip=1.2 must be over the upper bound 1 \+ 0.2"),
        ({"dual_clip": 1.3, "clip_range_high": 0.4}, r"dual_clip=1.3 must be over"),
        ({"dual_clip": 3.0, "loss": "cispo"}, r"no meaning for loss=cispo"),
        ({"loss": "ppo"}, r"loss\n.*'grpo', 'dapo'"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(given, message):
    with pytest.raises(ValidationError, match=message):
        GrpoConfig.model_validate(given)
