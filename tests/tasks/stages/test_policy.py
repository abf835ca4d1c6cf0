from dataclasses import replace
from pathlib import Path

import pytest

import grpo_train.updating.learner as learner
from configs.disk.files import Journal
from configs.errors import TrainingDiverged
from configs.records import Policy
from configs.schema.config import WatchRule
from grpo_train.observers.watch import Alarm
from grpo_train.policies.model import open_policy
from grpo_train.policies.tiny_model import save_tiny_model
from grpo_train.step import StepResult
from tasks.stages.policy import PolicySpec, body, expected_steps, never_measured, what_now
from tests.tasks.offline_samples import REWARDS
from tests.tasks.stage_kit import tiny, write_sums


def test_a_training_that_diverges_leaves_the_last_good_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step has two micro-batches: the NaN comes in the second step, so one good update is kept."""
    real, calls = learner.policy_loss, []

    def poisoned(*args, **kwargs):
        loss = real(*args, **kwargs)
        calls.append(loss)
        return loss if len(calls) <= 2 else replace(loss, value=loss.value * float("nan"))

    monkeypatch.setattr(learner, "policy_loss", poisoned)
    save_tiny_model(tmp_path / "given")
    given = open_policy(tmp_path / "given", 0)
    spec = PolicySpec(
        config=tiny(),
        round=1,
        policy=given,
        initial_policy=given,
        problems=str(write_sums(tmp_path)),
        reward_models={},
    )
    out_dir = tmp_path / "policy"
    with pytest.raises(TrainingDiverged, match=r"nan.*last_good"):
        body(spec, out_dir)
    assert open_policy(out_dir / "last_good", 1).id != given.id
    assert not (out_dir / "model").exists()


@pytest.mark.parametrize(
    ("changes", "models"),
    [
        ((), 1),
        (("grpo_config.monitor_kl_every=2",), 2),
        (("grpo_config.kl_coefficient=0.1", "grpo_config.monitor_kl_every=2"), 2),
        (("method={kind: ppo, value_warmup_updates: 0}", "grpo_config.monitor_kl_every=2"), 3),
    ],
    ids=["the policy alone", "and the initial policy", "which is the reference too", "and a value model"],
)
def test_the_journal_says_how_many_models_a_training_holds(
    tmp_path: Path, changes: tuple[str, ...], models: int
) -> None:
    """The initial policy is loaded where KL to it is measured, in the second step. Where the system tells it, the peak only grows."""
    save_tiny_model(tmp_path / "given")
    given = open_policy(tmp_path / "given", 0)
    grpo = ("grpo_config.monitor_kl_every=0", "grpo_config.refill=0", "grpo_config.max_updates=2")
    config = tiny(*REWARDS, *grpo, *changes)
    problems = str(write_sums(tmp_path))
    spec = PolicySpec(config=config, round=1, policy=given, initial_policy=given, problems=problems, reward_models={})
    body(spec, tmp_path / "policy")
    lines = Journal(tmp_path / "policy" / "journal.jsonl").read()
    assert [line.value for line in lines if line.key == "memory/models"][-1] == models
    peaks = [line.value for line in lines if line.key == "memory/peak_mib"]
    assert len(peaks) in (0, 2)
    assert peaks == sorted(peaks)


def test_a_rule_on_what_nobody_measures_is_told_with_the_nearest_name() -> None:
    """The guard never did anything, in silence."""
    rules = [
        WatchRule.model_validate({"metric": metric, "above": 1.0})
        for metric in ("policy/entrpy", "policy/entropy", "gap/taste", "x")
    ]
    told = never_measured(rules, {"policy/entropy", "reward/mean"})
    assert [text.partition("; ")[2] for text in told] == [
        "did you mean 'policy/entropy'?",
        "docs/metrics.md lists what is measured",
    ]


@pytest.mark.parametrize(
    ("metric", "action", "rounds", "extra", "then"),
    [
        ("gap/taste", "roll_back", 2, 0, "; round 2 retrains the reward models on what this policy writes"),
        ("gap/taste", "stop", 1, 1, "; round 2 retrains the reward models on what this policy writes"),
        ("gap/taste", "stop", 1, 0, "; set rounds=2, or extra_rounds of the rule, to retrain the reward models"),
        ("gap/taste", "warn", 2, 0, ""),
        ("policy/entropy", "stop", 2, 0, ""),
    ],
)
def test_a_gap_that_ends_training_asks_for_retraining(
    tmp_path: Path, metric: str, action: str, rounds: int, extra: int, then: str
) -> None:
    given = Policy(path="nowhere", id="p", round=0)
    spec = PolicySpec(
        config=tiny(f"rounds={rounds}"),
        round=1,
        policy=given,
        initial_policy=given,
        problems=str(write_sums(tmp_path)),
        reward_models={},
    )
    rule = WatchRule.model_validate({"metric": metric, "above": 1.0, "action": action, "extra_rounds": extra})
    said = what_now(Alarm(rule, step=3, value=2.0, since=1), spec)
    assert said.startswith(then)
    assert bool(said) == bool(then)


@pytest.mark.parametrize(
    ("step", "spent", "steps"),
    [
        (4, None, 40),  # no budget
        (4, 0.25, 16),
        (4, 0.05, 40),  # not more than there can be
        (4, 1.3, 4),  # the last step went beyond it
    ],
)
def test_a_budget_tells_about_how_many_steps_there_will_be(step: int, spent: float | None, steps: int) -> None:
    metrics = {} if spent is None else {"budget/spent_share": spent}
    assert expected_steps(StepResult(step, metrics, [], [], None), 40) == steps
