"""Two ranks train SmolLM2-135M as one process does, and each takes a part of the memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.grpo_train.updating.ranks_kit import case, completions, train
from tests.paths import ROOT

MODEL = ROOT / "models/SmolLM2-135M-Instruct"
LENGTHS = (40, 64, 24, 56, 64, 33, 48, 60)
HELD, PEAK = 0.65, 0.6
"""of what one process has between steps, and at most, imports included, that each of two ranks may have"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def test_two_ranks_train_smollm_as_one_process_does_in_a_part_of_its_memory(tmp_path: Path) -> None:
    work = case(
        MODEL,
        completions(49_000, LENGTHS, num_prompt_tokens=40),
        precision="float32",
        max_response_length=64,
        micro_batch_tokens=256,
        learning_rate=1e-6,
    )
    one, two = (train(tmp_path / str(n), {"case": work}, num_ranks=n)["case"] for n in (1, 2))
    assert max(two.held_mib) <= HELD * one.held_mib[0], (one.held_mib, two.held_mib)
    assert max(two.peak_mib) <= PEAK * one.peak_mib[0], (one.peak_mib, two.peak_mib)
    for first, second in zip(one.steps, two.steps, strict=True):
        assert second["policy/loss"] == pytest.approx(first["policy/loss"], rel=1e-5, abs=1e-5)
        # a sum over 135 million squares in another order: 1e-5 was seen
        assert second["policy/grad_norm"] == pytest.approx(first["policy/grad_norm"], rel=3e-5)
    weights = two.weights
    assert all(torch.allclose(weight, weights[name], rtol=0, atol=1e-5) for name, weight in one.weights.items())
