"""What the benchmark of baselines computes from gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.methods.baselines import METHODS, _noise_to_signal, configured, pair, ratio_of_means
from benchmarks.workloads import WORKLOADS


def test_a_pair_estimates_variance_and_signal() -> None:
    # |(1, 2, 3) - (3, 2, 0)|^2 / 2 = (4 + 0 + 9) / 2; the product is 3 + 4 + 0
    found = pair([torch.tensor([1.0]), torch.tensor([2.0, 3.0])], [torch.tensor([3.0]), torch.tensor([2.0, 0.0])])
    assert (found.variance, found.signal) == (6.5, 7)


def test_both_estimates_have_no_bias() -> None:
    """Gradients drawn with mean (3, 0) and covariance of trace 2."""
    draw = torch.Generator().manual_seed(0)
    mean = torch.tensor([3.0, 0.0])
    found = [
        pair([mean + torch.randn(2, generator=draw)], [mean + torch.randn(2, generator=draw)]) for _ in range(20_000)
    ]
    assert np.mean([one.variance for one in found]) == pytest.approx(2, abs=0.05)
    assert np.mean([one.signal for one in found]) == pytest.approx(9, abs=0.1)


def test_values_that_rise_together_have_a_certain_ratio() -> None:
    below = np.array([1.0, 5.0, 2.0, 9.0])
    assert ratio_of_means(below / 4, below) == pytest.approx((0.25, 0.25, 0.25))


def test_noise_to_signal_is_unknown_where_the_signal_is_not_told_from_zero() -> None:
    variances = np.array([4.0, 6.0, 5.0, 5.0])
    assert _noise_to_signal(variances, np.array([2.0, 2.5, 3.0, 2.5])) == "2.0"
    assert _noise_to_signal(variances, np.array([9.0, -8.0, 3.0, -2.0])) == "unknown"


def test_each_method_has_its_own_loss_and_scale() -> None:
    config = WORKLOADS["natural"].settings()
    chosen = {name: configured(config, name) for name in METHODS}
    assert {name: one.grpo_config.loss for name, one in chosen.items()} == {
        "reinforce, no baseline": "dr_grpo",
        "reinforce, mean of the step": "dr_grpo",
        "rloo": "dr_grpo",
        "grpo": "grpo",
    }
