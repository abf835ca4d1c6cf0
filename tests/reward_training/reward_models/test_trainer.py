"""What the trainers of pairs do with micro-batches of different sizes."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Trainer

from reward_training.reward_models import train as training
from reward_training.reward_models.scores import RewardModelScorer
from reward_training.reward_models.trainer import MeanOverPairs
from reward_training.transformer import precision
from tests.reward_training.reward_models.test_train import CONFIG, conversations, make_pairs


class MeansOfMicroBatches(Trainer):
    """As TRL's trainers: the loss, and a metric, are means over a micro-batch."""

    def compute_loss(self, model: Tensor, inputs: dict[str, Tensor], *args: Any, **kwargs: Any) -> Any:
        self._metrics["train"]["margin"].append(float(inputs["pairs"].mean()))
        return (model * inputs["pairs"]).mean()


class OverPairs(MeanOverPairs, MeansOfMicroBatches):
    COUNTED = "pairs"
    MEANS = ("margin",)

    def __init__(self, micro_batches: list[Tensor]) -> None:
        self._metrics = {"train": defaultdict(list)}
        self.num_responses = sum(len(micro) for micro in micro_batches)
        self.current_gradient_accumulation_steps = len(micro_batches)


def gradient_and_margin(*micro_batches: list[float]) -> tuple[float, float]:
    """Of one update, with transformers' division of each loss by the number of micro-batches."""
    given = [torch.tensor(micro) for micro in micro_batches]
    trainer, weight = OverPairs(given), torch.ones((), requires_grad=True)
    for pairs in given:
        (trainer.compute_loss(weight, {"pairs": pairs}) / len(given)).backward()
    assert weight.grad is not None
    margins = trainer._metrics["train"]["margin"]
    return float(weight.grad), sum(margins) / len(margins)


def test_gradient_and_metrics_of_unequal_micro_batches_are_exactly_those_of_the_whole_batch() -> None:
    """The mean of the micro-batches' means, (3 + 10) / 2, counted each of the two last pairs three times."""
    pairs = [6.0, 0.0, 6.0, 0.0, 6.0, 0.0, 8.0, 12.0]
    whole = gradient_and_margin(pairs)
    assert whole == (4.75, 4.75)  # 38 / 8
    assert gradient_and_margin(pairs[:6], pairs[6:]) == whole  # 6 / 8 x 3 + 2 / 8 x 10
    assert gradient_and_margin(pairs[:4], pairs[4:]) == whole  # 4 / 8 x 3 + 4 / 8 x 6.5


def test_a_last_update_of_unequal_micro_batches_is_that_of_one_batch(
    policy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """14 pairs by 8: the last update has 6, which go through the model as 4 and 2. In bfloat16 the norms are 1e-3 apart."""
    monkeypatch.setattr(precision, "is_fast_in_bfloat16", lambda device: False)
    seen: dict[int, list[dict[str, float]]] = {4: [], 8: []}
    scores = {}
    for micro, steps in seen.items():
        monkeypatch.setattr(training, "micro_batch_size", lambda *_, micro=micro: micro)
        training.train_reward_model(
            make_pairs(0, 7), base=policy_folder, out_dir=tmp_path / str(micro), seed=0, should_stop=lambda: False,
            config=CONFIG.model_copy(update={"epochs": 1}), on_step=lambda _, metrics, steps=steps: steps.append(metrics),
        )  # fmt: skip
        with RewardModelScorer(tmp_path / str(micro), max_length=128) as scorer:
            scores[micro] = scorer.scores(conversations(tmp_path / str(micro)))
    assert len(seen[4]) == 2
    for split, whole in zip(seen[4], seen[8], strict=True):
        assert split == pytest.approx(whole, rel=1e-4)
    assert scores[4] == pytest.approx(scores[8], rel=1e-3, abs=1e-4)
