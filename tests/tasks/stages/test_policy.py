from dataclasses import replace
from pathlib import Path

import pytest

import grpo_train.updating.learner as learner
from configs.errors import TrainingDiverged
from configs.records import Policy
from configs.schema.config import WatchRule
from grpo_train.observers.watch import Alarm
from grpo_train.policies.model import open_policy
from grpo_train.policies.tiny_model import save_tiny_model
from tasks.stages.policy import PolicySpec, body, what_now
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
