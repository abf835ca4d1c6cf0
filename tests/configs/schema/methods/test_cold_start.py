"""What a cold start may be, and that a configuration without one is as it was."""

from __future__ import annotations

import pytest

from configs.errors import ConfigError
from configs.reader import load_config
from configs.schema.operational import without_operational
from tests.paths import TINY

BY_ROUND = "schedule: {over: rounds, points: [[1, 0.0], [2, 1.0]]}"
NOTHING_BEFORE = (
    "cold_start.own_samples takes the best responses by the rewards.*round 1 trains first, or has no weight in round 0"
)


def beside_taste(reward: str) -> list[str]:
    """Own samples, by a reward model that the run trains and by this reward."""
    rewards = f"rewards=[{{name: taste, kind: reward_model, model: taste}}, {{name: other, {reward}}}]"
    return ["cold_start={own_samples: {}}", rewards, "promotion.metric=sampled/taste"]


MODELS_ALONE = ("rewards=[{name: taste, kind: reward_model, model: taste}]", "promotion.metric=sampled/taste")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["cold_start={}"], "neither of demonstrations and own_samples; give one of them, or leave cold_start out"),
        (["cold_start={demonstrations: {path: d}, own_samples: {}}"], "both of demonstrations and own_samples"),
        (["cold_start={demonstrations: {}}"], "cold_start.demonstrations.path"),
        (["cold_start={demonstrations: {path: ''}}"], "cold_start.demonstrations.path"),
        (["cold_start={own_samples: {group_size: 1}}"], "cold_start.own_samples.group_size"),
        (["cold_start={own_samples: {}, epochs: 0}"], "cold_start.epochs"),
        (["cold_start={own_samples: {}, learning_rate: 0}"], "cold_start.learning_rate"),
        (
            ["cold_start={own_samples: {}}", "grpo_config.vllm={}", "launcher={kind: torchrun, num_processes: 2, shard: true}"],
            "launcher.shard=true splits the policy .*use shard=false",
        ),
        (
            ["cold_start={own_samples: {}}", *MODELS_ALONE],
            NOTHING_BEFORE,
        ),
        (beside_taste("kind: length, target: 9, limit: 20, weight: 0"), NOTHING_BEFORE),
        (beside_taste(f"kind: length, target: 9, limit: 20, {BY_ROUND}"), NOTHING_BEFORE),
        (beside_taste("kind: process, checked_by: taste"), NOTHING_BEFORE),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_by_name(changes: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(TINY, changes)


@pytest.mark.parametrize(
    "reward",
    [
        "kind: length, target: 9, limit: 20, weight: -0.5",
        "kind: length, target: 9, limit: 20, schedule: {over: steps, points: [[1, 0.0], [9, 1.0]]}",
        "kind: process",
    ],
)
def test_own_samples_need_one_reward_that_counts_before_round_1(reward: str) -> None:
    """A schedule over steps counts with its end, as in all that is scored outside training."""
    assert load_config(TINY, beside_taste(reward)).cold_start is not None


def test_demonstrations_need_no_reward_that_scores_before_round_1() -> None:
    cold = load_config(TINY, ["cold_start={demonstrations: {path: d.jsonl}}", *MODELS_ALONE]).cold_start
    assert cold is not None
    assert (cold.learning_rate, cold.epochs, cold.batch_size) == (1e-5, 1, 16)


def test_without_one_what_a_run_is_asked_to_compute_is_as_it_was() -> None:
    assert "cold_start" not in without_operational(load_config(TINY))
    own = load_config(TINY, ["cold_start={own_samples: {}}"])
    assert without_operational(own)["cold_start"]["own_samples"]["num_problems"] == 128
