"""Trainings by each method whose advantages come from scores alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from configs.errors import ConfigError
from configs.records import Policy
from grpo_train.policies.model import save_policy
from tests.grpo_train.test_resume import attempt, same, stopped
from tests.grpo_train.test_trainer import run, tiny_config

METHODS = {
    "reinforce": "{kind: reinforce}",
    "reinforce, no baseline": "{kind: reinforce, baseline: none}",
    "reinforce, moving average": "{kind: reinforce, baseline: moving_average, decay: 0.5}",
    "rloo": "{kind: rloo}",
    "best_of_n": "{kind: best_of_n}",
}


@pytest.fixture
def policy(tiny: Any, tmp_path: Path) -> Policy:
    return save_policy(*tiny, tmp_path / "policy", round_index=0)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_the_policy_learns_what_is_rewarded(policy: Policy, method: str) -> None:
    config = tiny_config(
        f"method={method}", "grpo_config.max_updates=20", "grpo_config.epochs=8", "grpo_config.learning_rate=3e-3"
    )
    _, steps, _ = run(policy, config)
    means = [step.metrics["reward/mean"] for step in steps]
    assert sum(means[-4:]) / 4 > 2 * max(0.02, sum(means[:2]) / 2)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_stopped_training_that_goes_on_ends_as_if_it_had_not_been(
    policy: Policy, tmp_path: Path, method: str
) -> None:
    config = tiny_config(f"method={method}", "grpo_config.max_updates=6", "grpo_config.epochs=4")
    undisturbed = attempt(policy, config, None)
    stopped(policy, config, tmp_path / "stage", after=1)
    stopped(policy, config, tmp_path / "stage", after=4)
    assert same(undisturbed, attempt(policy, config, tmp_path / "stage"))


def test_rloo_is_what_combination_and_loss_say_by_hand(policy: Policy) -> None:
    by_hand = ("combination.scale=none", "combination.baseline=leave_one_out", "grpo_config.loss=dr_grpo")
    named, _, _ = run(policy, tiny_config("method={kind: rloo}", "grpo_config.max_updates=3"))
    spelled, _, _ = run(policy, tiny_config(*by_hand, "grpo_config.max_updates=3"))
    for one, other in zip(named.parameters(), spelled.parameters(), strict=True):
        assert torch.equal(one, other)


def test_nothing_over_the_minimum_leaves_the_policy_as_it_was(policy: Policy) -> None:
    model, steps, _ = run(policy, tiny_config("method={kind: best_of_n, min_score: 100}", "grpo_config.max_updates=2"))
    before, _, _ = run(policy, tiny_config("grpo_config.max_updates=1", "grpo_config.learning_rate=1e-30"))
    for one, other in zip(model.parameters(), before.parameters(), strict=True):
        assert torch.equal(one, other)
    assert [step.metrics["groups/dead_share"] for step in steps] == [1, 1]


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("method={kind: rloo}", "combination.scale=batch"), "combination.scale=batch does not go with method.kind=rloo; use none"),
        (("method={kind: rloo}", "grpo_config.loss=grpo"), "grpo_config.loss=grpo does not go with method.kind=rloo; use dr_grpo"),
        (("method={kind: reinforce}", "grpo_config.refill=1"), "grpo_config.refill=1 .* method.kind=reinforce"),
        (("method={kind: best_of_n}", "grpo_config.updates_per_batch=2"), "updates_per_batch=2 does not go with method.kind=best_of_n"),
        (("method={kind: best_of_n}", "grpo_config.response_cache.share=0.25"), "response_cache.share=0.25 .* method.kind=best_of_n"),
        (("method={kind: reinforce}", "combination={order: normalize_then_sum, scale: group}"), "combination.order=normalize_then_sum normalises in groups, which method.kind=reinforce does not"),
        (("method={kind: rloo}", "combination.order=normalize_then_sum"), "combination.order=normalize_then_sum normalises in groups"),
        (("method={kind: pop}",), "method"),
        (("method={kind: rloo, baseline: none}",), "baseline"),
    ],
)  # fmt: skip
def test_what_does_not_go_with_a_method_is_refused_by_name(overrides: tuple[str, ...], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        tiny_config(*overrides)


def test_settings_that_a_method_needs_are_its_own_where_they_are_left_out() -> None:
    config = tiny_config("method={kind: rloo}")
    assert (config.grpo_config.loss, config.combination.scale) == ("dr_grpo", "none")
    assert tiny_config("method={kind: grpo}") == tiny_config()
