"""A budget ends a round's training after the step that reaches it, also when the training was interrupted."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest

from configs.errors import ConfigError
from configs.records import Policy
from configs.schema.comparing.budget import BudgetConfig
from grpo_train.observers.spending import Spending
from grpo_train.policies.model import save_policy
from grpo_train.step import Stepper, StepResult
from grpo_train.train_result import TrainResult
from tasks.running.stage import ALONE
from tasks.stages.policy import PolicySpec, warn_of_one_step
from tests.grpo_train.observers.test_observer import groups, record
from tests.grpo_train.test_resume import attempt, same, stopped, without
from tests.grpo_train.test_trainer import tiny_config

LONG = ("grpo_config.max_updates=8", "grpo_config.epochs=4")
"""eight steps of 16 responses, of which each has 1 to 16 tokens"""


@pytest.fixture
def policy(tiny: Any, tmp_path: Path) -> Policy:
    return save_policy(*tiny, tmp_path / "policy", round_index=0)


def tokens_after(steps: list[StepResult]) -> list[int]:
    """Tokens that were generated up to the end of each step."""
    return list(accumulate(int(step.metrics["tokens/generated"]) for step in steps))


def test_training_ends_with_the_step_that_reaches_the_tokens(policy: Policy) -> None:
    totals = tokens_after(attempt(policy, tiny_config(*LONG), None).steps)
    exactly = attempt(policy, tiny_config(*LONG, f"budget.generated_tokens={totals[2]}"), None)
    one_more = attempt(policy, tiny_config(*LONG, f"budget.generated_tokens={totals[2] + 1}"), None)
    assert [step.step for step in exactly.steps] == [1, 2, 3]
    assert [step.step for step in one_more.steps] == [1, 2, 3, 4]
    assert exactly.result.is_budget_spent
    assert exactly.result.num_updates == 3
    # monitor_kl_every is 2, and the third step is known to be the last once its responses are written
    assert ["policy/kl_initial" in step.metrics for step in exactly.steps] == [False, True, True]
    shares = [step.metrics["budget/spent_share"] for step in exactly.steps]
    assert shares == [total / totals[2] for total in totals[:3]]


def test_a_budget_that_is_not_reached_changes_nothing(policy: Policy) -> None:
    free = attempt(policy, tiny_config(*LONG), None)
    bounded = attempt(policy, tiny_config(*LONG, "budget.generated_tokens=1000000"), None)
    assert (free.weights == bounded.weights).all()
    assert not bounded.result.is_budget_spent


def test_what_was_sampled_is_spent_refused_groups_too_and_cached_responses_not() -> None:
    """Of two tokens each: 1 of the 2 responses to a is from the cache, and 2 of a refused group count: 3 x 2 = 6 of 60."""
    spending = Spending(BudgetConfig(generated_tokens=60))
    step = record(groups({"a": [1.0, 0.0]}, old=("a/1",)), groups({"d": [0.0, 0.5]}))
    step.metrics["time/step"] = 2.0
    assert spending.look(step) == {"budget/spent_share": 0.1}
    assert spending.state() == {"generated_tokens": 6, "train_seconds": 2.0}


def test_a_stopped_training_ends_at_the_step_of_one_that_was_not(policy: Policy, tmp_path: Path) -> None:
    totals = tokens_after(attempt(policy, tiny_config(*LONG), None).steps)
    config = tiny_config(*LONG, f"budget.generated_tokens={totals[4]}")
    undisturbed = attempt(policy, config, None)
    stopped(policy, config, tmp_path / "stage", after=1)
    stopped(policy, config, tmp_path / "stage", after=3)
    resumed = attempt(policy, config, tmp_path / "stage")
    assert [step.step for step in resumed.steps] == [4, 5]
    assert same(undisturbed, resumed)


def test_a_checkpoint_without_what_was_spent_ends_later(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    totals = tokens_after(attempt(policy, tiny_config(*LONG), None).steps)
    config = tiny_config(*LONG, f"budget.generated_tokens={totals[4]}")
    monkeypatch.setattr(Stepper, "components", without("spending", Stepper.components))
    stopped(policy, config, tmp_path / "stage", after=3)
    assert attempt(policy, config, tmp_path / "stage").steps[-1].step > 5


def test_seconds_are_those_of_the_steps_over_all_calls(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps of 2 s and a budget of 9 s: the fifth reaches it, at 10 s, also when the training was stopped after the second."""
    look = Spending.look
    monkeypatch.setattr(
        Spending, "look", lambda self, step: look(self, step) if step.metrics.update({"time/step": 2.0}) is None else {}
    )
    config = tiny_config(*LONG, "budget.train_seconds=9")
    stopped(policy, config, tmp_path / "stage", after=2)
    resumed = attempt(policy, config, tmp_path / "stage")
    assert [step.step for step in resumed.steps] == [3, 4, 5]
    assert resumed.steps[-1].metrics["budget/spent_share"] == 10 / 9
    assert resumed.result.is_budget_spent


def test_results_of_earlier_versions_have_no_budget() -> None:
    assert not TrainResult(num_updates=3).is_budget_spent


def test_a_budget_that_the_first_step_spends_is_told(policy: Policy) -> None:
    config = tiny_config(*LONG, "budget.generated_tokens=16")
    [step] = attempt(policy, config, None).steps
    spec = PolicySpec(config=config, round=1, policy=policy, initial_policy=policy, problems="", reward_models={})
    told: list[str] = []
    warn_of_one_step(spec, step, replace(ALONE, warn=told.append))
    warn_of_one_step(spec, replace(step, step=2), replace(ALONE, warn=told.append))
    [text] = told
    assert "spent all of budget.generated_tokens=16; the policy was trained for one step: raise the budget" in text


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("budget.generated_tokens=15", r"budget\.generated_tokens=15 is less than one step, .*batch_size=16"),
        ("budget={}", "either generated_tokens or train_seconds"),
        ("budget={generated_tokens: 100, train_seconds: 9}", "exactly one of them"),
        ("budget.train_seconds=0", r"budget\.train_seconds"),
    ],
)
def test_budgets_that_cannot_be_kept_are_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_config(override)
