"""The loop on a small random model, with rewards given as plain functions."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from configs.errors import StageStopped
from configs.reader import load_config
from configs.records import Completion, Policy, Problem
from configs.schema import Config
from grpo_train.learner import TrainingDiverged
from grpo_train.model import load_policy, save_policy
from grpo_train.trainer import StepResult, TrainResult, num_steps, train
from reward_training.reward import Unscored
from tests.grpo_train.conftest import make_problem

PROBLEMS = [make_problem(f"{i} + {i}", str(2 * i)) for i in range(12)]


class Given:
    """A reward that a test writes down."""

    def __init__(self, name: str, weight: float, value: Callable[[Completion], float | Unscored]) -> None:
        self.name, self.weight, self.value = name, weight, value

    def __call__(self, problems: Sequence[Problem], completions: Sequence[Completion]) -> list[float | Unscored]:
        return [self.value(completion) for completion in completions]


def fives(completion: Completion) -> float:
    """Share of the response that is the digit 5."""
    return completion.text.count("5") / len(completion.token_ids)


def tiny_config(*overrides: str) -> Config:
    path = Path(__file__).parents[2] / "configs" / "tiny.yaml"
    return load_config(path, ["grpo_config.precision=float32", "evaluation.checker=correct", *overrides])


@pytest.fixture
def policy(tiny, tmp_path: Path) -> Policy:
    return save_policy(*tiny, tmp_path / "policy", round=0)


def run(
    policy: Policy,
    config: Config,
    reward: Callable[[Completion], float | Unscored] = fives,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[torch.nn.Module, list[StepResult], TrainResult]:
    model, tokenizer = load_policy(policy.path, device="cpu")
    steps: list[StepResult] = []
    result = train(
        model,
        tokenizer,
        PROBLEMS,
        policy=policy,
        initial_policy=policy,
        rewards=[Given("fives", 1.0, reward)],
        config=config,
        round=1,
        on_step=steps.append,
        should_stop=should_stop,
    )
    return model, steps, result


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_the_policy_learns_what_is_rewarded(policy):
    config = tiny_config(
        "grpo_config.max_updates=30",
        "grpo_config.epochs=100",
        "grpo_config.batch_size=48",
        "grpo_config.learning_rate=3e-3",
    )
    _, steps, result = run(policy, config)
    rewards = [step.metrics["objective/fives/mean"] for step in steps]
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.2
    assert result.num_updates == 30
    assert result.advantage_share == {"fives": pytest.approx(1.0)}


def test_the_same_seed_ends_with_the_same_weights_and_another_with_others(policy):
    first, again, other = (run(policy, tiny_config(f"seed={seed}"))[0] for seed in (3, 3, 4))
    assert torch.equal(weights(first), weights(again))
    assert not torch.equal(weights(first), weights(other))


def test_micro_batch_tokens_do_not_change_the_update(policy):
    one = ["grpo_config.max_updates=1", "grpo_config.learning_rate=1e-2"]
    whole, split = (
        run(policy, tiny_config(*one, f"grpo_config.micro_batch_tokens={size}"))[1][0] for size in (10_000, 1)
    )
    assert whole.metrics["policy/grad_norm"] == pytest.approx(split.metrics["policy/grad_norm"], rel=1e-4)
    assert whole.metrics["policy/loss"] == pytest.approx(split.metrics["policy/loss"], abs=1e-6)


def test_dead_groups_cost_no_backward_pass_and_change_nothing(policy, monkeypatch):
    calls = []
    monkeypatch.setattr("grpo_train.learner.response_logprobs", lambda *args: calls.append(args))
    model, steps, _ = run(policy, tiny_config("grpo_config.max_updates=2"), reward=lambda completion: 0.5)
    assert calls == []
    assert steps[0].metrics["groups/dead_share"] == 1.0
    assert steps[0].metrics["policy/grad_norm"] == 0.0
    assert torch.equal(weights(model), weights(load_policy(policy.path, device="cpu")[0]))


def test_with_a_kl_term_dead_groups_keep_their_backward_pass(policy):
    config = tiny_config("grpo_config.kl_coefficient=0.1", "grpo_config.max_updates=3")
    _, steps, _ = run(policy, config)
    assert steps[0].metrics["policy/kl_reference"] == pytest.approx(0.0, abs=1e-5)
    assert steps[2].metrics["policy/kl_reference"] > 1e-4


def test_a_strong_kl_term_holds_the_policy_near_the_reference(policy):
    kl = {}
    for coefficient in (0.0, 10.0):
        config = tiny_config(
            f"grpo_config.kl_coefficient={coefficient}",
            "grpo_config.max_updates=15",
            "grpo_config.epochs=20",
            "grpo_config.monitor_kl_every=15",
        )
        kl[coefficient] = run(policy, config)[1][-1].metrics["policy/kl_initial"]
    assert kl[10.0] < kl[0.0] / 3


def test_several_updates_on_a_batch_see_ratios_other_than_one(policy):
    config = tiny_config(
        "grpo_config.updates_per_batch=4", "grpo_config.max_updates=8", "grpo_config.learning_rate=1e-2"
    )
    _, steps, result = run(policy, config)
    assert len(steps) == 2
    assert result.num_updates == 8
    assert steps[0].metrics["policy/clip_fraction"] > 0


def test_a_response_is_compared_with_the_others_of_its_group_where_the_baseline_leaves_it_out(policy):
    config = tiny_config("combination.baseline=leave_one_out", "combination.scale=none", "grpo_config.max_updates=1")
    rows = run(policy, config)[1][0].rollouts
    for start in range(0, 16, 4):
        totals = [row["total"] for row in rows[start : start + 4]]
        for row in rows[start : start + 4]:
            assert row["advantage"] == pytest.approx(row["total"] - (sum(totals) - row["total"]) / 3)


def test_truncated_responses_are_left_out_where_configured(policy):
    config = tiny_config("grpo_config.truncated=leave_out", "grpo_config.max_updates=1", "grpo_config.batch_size=48")
    rows = run(policy, config)[1][0].rollouts
    truncated = [row for row in rows if row["finish_reason"] == "length"]
    assert any(row["total"] > 0 for row in truncated)
    assert all(row["advantage"] == 0 for row in truncated)
    assert any(row["advantage"] != 0 for row in rows)


def test_the_learning_rate_warms_up_and_decays(policy):
    config = tiny_config(
        "grpo_config.warmup_updates=2",
        "grpo_config.schedule=linear",
        "grpo_config.max_updates=6",
        "grpo_config.epochs=10",
        "grpo_config.learning_rate=1e-3",
    )
    rates = [step.metrics["policy/learning_rate"] for step in run(policy, config)[1]]
    # the rate that the next update takes: 2 warm-up updates, then down to 0 over 4
    assert rates == pytest.approx([5e-4, 1e-3, 7.5e-4, 5e-4, 2.5e-4, 0.0])


def test_nothing_logged_is_nan_and_shares_add_up(policy):
    for step in run(policy, tiny_config())[1]:
        assert all(value == value for value in step.metrics.values())
        assert step.metrics["objective/fives/advantage_share"] == pytest.approx(1.0)
        assert len(step.rollouts) == 16
        assert step.rollouts[0].keys() >= {"step", "prompt", "text", "parts", "advantage"}


def test_diverging_stops_with_the_last_good_weights(policy, monkeypatch):
    """A NaN loss must not reach the optimizer."""
    import grpo_train.learner as learner

    real, calls = learner.policy_loss, []

    def poisoned(*args, **kwargs):
        loss = real(*args, **kwargs)
        calls.append(loss)
        return loss if len(calls) <= 2 else replace(loss, value=loss.value * float("nan"))

    monkeypatch.setattr(learner, "policy_loss", poisoned)
    model, tokenizer = load_policy(policy.path, device="cpu")
    kept = []
    with pytest.raises(TrainingDiverged, match=r"nan.*learning_rate"):
        train(
            model,
            tokenizer,
            PROBLEMS,
            policy=policy,
            initial_policy=policy,
            rewards=[Given("fives", 1.0, fives)],
            config=tiny_config(),
            round=1,
            on_step=lambda step: kept.append(weights(model)),
        )
    assert len(kept) == 1
    assert torch.equal(weights(model), kept[-1])


def test_a_watch_rule_ends_training_early(policy):
    config = tiny_config("watch=[{metric: policy/entropy, above: 0.0, patience: 2, action: stop}]")
    _, steps, result = run(policy, config)
    assert len(steps) == 2
    assert "policy/entropy" in result.stopped_by


def test_a_stop_is_obeyed_between_steps(policy):
    asked = iter([False, True])
    with pytest.raises(StageStopped, match="before step 2"):
        run(policy, tiny_config(), should_stop=lambda: next(asked))


def test_too_many_unscored_completions_stop_the_stage(policy):
    with pytest.raises(ValueError, match="fives"):
        run(policy, tiny_config(), reward=lambda completion: Unscored("away"))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["grpo_config.epochs=1"], 3),
        (["grpo_config.epochs=2"], 6),
        (["grpo_config.epochs=1", "grpo_config.max_updates=2"], 2),
        (["grpo_config.epochs=9", "grpo_config.max_updates=6", "grpo_config.updates_per_batch=4"], 2),
    ],
)
def test_steps_are_epochs_over_batches_capped_by_updates(overrides, expected):
    # 12 problems in groups of 4 are 48 responses, 16 an update
    assert num_steps(tiny_config("grpo_config.max_updates=null", *overrides).grpo_config, 12) == expected
