"""The noise-to-signal ratio from running sums equals that from the gradients themselves."""

import numpy as np
import pytest
import torch

from benchmarks.group_sizes import GradientMoments


def test_noise_to_signal_is_that_of_the_covariance_and_the_mean():
    generator = np.random.default_rng(0)
    gradients = generator.normal(size=(6, 5)) + 3.0
    moments = GradientMoments()
    for gradient in gradients:
        moments.add([torch.tensor(gradient[:2]), torch.tensor(gradient[2:])])
    variance = np.cov(gradients, rowvar=False).trace()
    signal = (gradients.mean(axis=0) ** 2).sum() - variance / len(gradients)
    assert moments.noise_to_signal == pytest.approx(variance / signal)


def test_gradients_that_are_noise_alone_have_no_signal():
    moments = GradientMoments()
    for value in (1.0, -1.0):
        moments.add([torch.tensor([value])])
    assert moments.noise_to_signal == float("inf")
