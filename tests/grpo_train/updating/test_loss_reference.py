"""The losses in value and gradient against a reference in float64, and their invariance to micro-batches and skipped rows."""

import math
from collections.abc import Iterator
from typing import get_args

import numpy as np
import pytest
import torch

from configs.schema.grpo import GrpoConfig
from grpo_train.updating.loss import BatchSize, policy_loss

LOSSES = list(get_args(GrpoConfig.model_fields["loss"].annotation))
SIZE = BatchSize(8, 29)


class Batch:
    """8 random padded rows in float64, far enough off policy that every bound is met; row 5 has advantage 0."""

    def __init__(self) -> None:
        rng = np.random.default_rng(5)
        self.lengths = [6, 1, 3, 6, 2, 4, 5, 2]
        self.logprobs, noise, more = (torch.tensor(rng.normal(size=(8, 6))) for _ in range(3))
        self.logprobs = self.logprobs.abs().neg()
        self.old, self.reference = self.logprobs + noise, self.logprobs + 0.5 * more
        self.advantages = torch.tensor([1.5, -0.7, 0.4, -1.2, 0.9, 0.0, -2.0, 0.6], dtype=torch.float64)
        self.mask = (torch.arange(6) < torch.tensor(self.lengths)[:, None]).double()

    def loss_and_gradient(self, grpo: GrpoConfig, rows: list[int], width: int = 6) -> tuple[float, np.ndarray]:
        logprobs = self.logprobs.clone().requires_grad_()
        loss = policy_loss(
            logprobs[rows, :width],
            self.advantages[rows],
            self.mask[rows, :width],
            grpo=grpo,
            size=SIZE,
            old_logprobs=self.old[rows, :width],
            reference_logprobs=self.reference[rows, :width] if grpo.kl_coefficient else None,
        )
        loss.value.backward()
        return loss.value.item(), logprobs.grad.numpy()


def reference_terms(batch: Batch, grpo: GrpoConfig) -> Iterator[tuple[int, int, float, float]]:
    """Each token's place, its part of the loss and the derivative by its log-probability, written out by hand."""
    high = 1 + (grpo.clip_range_high or grpo.clip_range)
    for i, length in enumerate(batch.lengths):
        lp, old, ref = (values[i, :length].numpy() for values in (batch.logprobs, batch.old, batch.reference))
        a = float(batch.advantages[i])
        for t in range(length):
            r = math.exp(np.mean(lp - old) if grpo.loss == "gspo" else lp[t] - old[t])
            if grpo.loss == "cispo":
                value, slope = -min(r, high) * a * lp[t], -min(r, high) * a
            elif a > 0:
                value, slope = (-r * a, -r * a) if r <= high else (-high * a, 0.0)
            else:
                bounded = min(max(r, 1 - grpo.clip_range), grpo.dual_clip or math.inf)
                value, slope = -bounded * a, (-r * a if bounded == r else 0.0)
            d = ref[t] - lp[t]
            kl = {"k1": (-d, -d), "k2": (d * d / 2, -d), "k3": (math.exp(d) - d - 1, 1 - math.exp(d))}[
                grpo.kl_estimator
            ]
            weight = {"grpo": 1 / (8 * length), "gspo": 1 / (8 * length), "dr_grpo": 1 / (8 * 32)}.get(
                grpo.loss, 1 / sum(batch.lengths)
            )
            yield i, t, weight * (value + grpo.kl_coefficient * kl[0]), weight * (slope + grpo.kl_coefficient * kl[1])


def settings(name: str, **more: object) -> GrpoConfig:
    dual_clip = None if name == "cispo" else 1.6
    given = {"clip_range_high": 0.3, "dual_clip": dual_clip, "max_response_length": 32} | more
    return GrpoConfig.model_validate({"loss": name} | given)


@pytest.mark.parametrize("estimator", [None, "k1", "k2", "k3"])
@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient_equal_a_reference_in_float64(name, estimator):
    kl = {} if estimator is None else {"kl_coefficient": 0.3, "kl_estimator": estimator}
    grpo, batch = settings(name, **kl), Batch()
    value, gradient = batch.loss_and_gradient(grpo, list(range(8)))
    terms = list(reference_terms(batch, grpo))
    expected = np.zeros((8, 6))
    for i, t, _, slope in terms:
        expected[i, t] = slope
    assert value == pytest.approx(sum(term[2] for term in terms), rel=1e-12)
    assert gradient == pytest.approx(expected, rel=1e-10, abs=1e-14)


@pytest.mark.parametrize("name", LOSSES)
def test_eight_micro_batches_of_one_trimmed_to_its_length_add_up_to_one_of_eight(name):
    grpo, batch = settings(name, kl_coefficient=0.2), Batch()
    value, gradient = batch.loss_and_gradient(grpo, list(range(8)))
    parts = [batch.loss_and_gradient(grpo, [row], width=batch.lengths[row]) for row in range(8)]
    assert sum(part[0] for part in parts) == pytest.approx(value, rel=1e-12)
    assert sum(part[1] for part in parts) == pytest.approx(gradient, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("name", LOSSES)
def test_leaving_out_a_row_of_zero_advantage_changes_nothing_without_a_kl_term(name):
    grpo, batch = settings(name), Batch()
    value, gradient = batch.loss_and_gradient(grpo, list(range(8)))
    without = batch.loss_and_gradient(grpo, [0, 1, 2, 3, 4, 6, 7])
    assert without[0] == pytest.approx(value, rel=1e-12)
    assert without[1] == pytest.approx(gradient, rel=1e-12, abs=1e-15)
