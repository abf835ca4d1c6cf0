"""Reward models on a GPU: they learn there, and their scores equal those on a CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from reward_training.reward_models.check import check_reward_model
from reward_training.reward_models.scores import RewardModelScorer
from tests.reward_training.reward_models.test_train import CONFIG, make_pairs, train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that torch sees"),
]


@pytest.fixture(scope="module")
def trained(policy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    train(folder, policy_folder)
    return folder


def test_it_learns_there(trained: Path) -> None:
    report = check_reward_model(
        trained, make_pairs(100, 20), [], config=CONFIG, num_train_pairs=48, num_replayed_pairs=0, seed=0
    )
    assert report.accuracy is not None
    assert report.accuracy.estimate == 1.0


def test_float32_scores_are_the_cpus(trained: Path) -> None:
    texts = [f"<|user|>say {n}<|end|>\n<|assistant|>z{n}<|end|>\n" for n in range(40)]
    scores = []
    for device in ("cuda", "cpu"):
        with RewardModelScorer(trained, max_length=64, device=torch.device(device), precision="float32") as scorer:
            scores.append(scorer.scores(texts))
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)
    assert len(set(scores[0])) > 10


def test_the_same_seed_gives_the_same_weights(trained: Path, policy_folder: Path, tmp_path: Path) -> None:
    train(tmp_path / "again", policy_folder)
    first, again = ((folder / "model.safetensors").read_bytes() for folder in (trained, tmp_path / "again"))
    assert first == again
