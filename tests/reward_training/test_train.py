"""A small reward model learns a preference that is easy to see, repeatably."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.records import PreferencePair
from configs.schema import OutcomeLabeler, TrainedRewardModel
from reward_training.train import METRICS, train_reward_model

CONFIG = TrainedRewardModel(
    labeler=OutcomeLabeler(reward="correct"), learning_rate=1e-2, epochs=2, batch_size=8, min_pairs=16, max_length=128
)


def make_pairs(first: int, count: int) -> list[PreferencePair]:
    """Responses with a `z` are better than those with a `q`; two pairs a problem."""
    return [
        PreferencePair(
            problem_key=f"problem-{number}",
            prompt=[{"role": "user", "content": f"say {number}"}],
            chosen=f"z{number % 7}{'a' * extra}",
            rejected=f"{'b' * extra}q{number % 5}",
            margin=1.0,
            objective="taste",
            labeler="outcome",
            sources=("a", "b"),
            round=1,
            split="train",
        )
        for number in range(first, first + count)
        for extra in (1, 4)
    ]


def train(
    folder: Path, base: Path, *, seed: int = 0, config: TrainedRewardModel = CONFIG, stop_at: int | None = None
) -> list[dict[str, float]]:
    steps: list[dict[str, float]] = []
    train_reward_model(
        make_pairs(0, 24),
        base=base,
        out_dir=folder,
        config=config,
        seed=seed,
        on_step=lambda step, metrics: steps.append({"step": step, **metrics}),
        should_stop=lambda: stop_at is not None and len(steps) + 1 >= stop_at,
    )
    return steps


@pytest.fixture(scope="module")
def trained(policy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, float]]]:
    folder = tmp_path_factory.mktemp("trained")
    return folder, train(folder, policy_folder)


def test_training_reports_every_update(trained: tuple[Path, list[dict[str, float]]]) -> None:
    _, steps = trained
    # 48 pairs x 2 epochs / 8 pairs an update = 12 updates
    assert [step["step"] for step in steps] == list(range(1, 13))
    assert all(set(METRICS.values()) <= step.keys() for step in steps)
    assert all(step["reward_model/grad_norm"] > 0 for step in steps)
    assert steps[-1]["reward_model/loss"] < steps[0]["reward_model/loss"]
