"""What a round's value model begins from, and what is said or refused where that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from configs.errors import ConfigError
from configs.records import Policy
from grpo_train.policies.model import load_tokenizer, open_policy
from grpo_train.policies.tiny_model import save_tiny_model
from grpo_train.updating.critic import ValueModel
from reward_training.reward_models.scores import save_calibration
from reward_training.scorer import RewardModelSource
from tasks.stages.policy import PolicySpec
from tasks.stages.value_model import load_value_model
from tests.reward_training.rewards.test_model_reward import save_model
from tests.tasks.stage_kit import tiny, write_samples, write_sums


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    save_tiny_model(tmp_path / "policy")
    return open_policy(tmp_path / "policy", 0)


def loaded(
    policy: Policy, *, value_model: str = "taste", folder: Path | None = None, samples: Path | None = None
) -> tuple[ValueModel | None, list[str]]:
    """The value model, and what was said."""
    said: list[str] = []
    models = {} if folder is None else {"taste": RewardModelSource(folder, max_length=64)}
    config = tiny(f"method={{kind: ppo, value_model: {value_model}}}")
    tokenizer = load_tokenizer(policy.path)
    return load_value_model(config, 1, policy, tokenizer, models, samples, said.append), said


def head(start: ValueModel | None) -> torch.Tensor:
    assert start is not None
    weight = start.model.get_submodule("score").weight
    assert isinstance(weight, torch.Tensor)
    return weight


def test_from_the_policy_it_has_its_backbone_and_a_head_of_zeros(policy: Policy) -> None:
    start, said = loaded(policy, value_model="policy")
    assert start is not None
    assert not head(start).any()
    assert start.calibration is None
    assert said == []
    # the tiny model's, without its output layer of 101 tokens, and a head
    assert start.model.num_parameters() == 86_976 - 101 * 64 + 64


def test_from_a_reward_model_it_has_its_head_and_calibration(policy: Policy, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "taste", load_tokenizer(policy.path))
    save_calibration(folder, [1.0, 3.0])
    start, said = loaded(policy, folder=folder)
    assert head(start).any()
    assert start is not None
    assert start.calibration is not None
    assert (start.calibration.mean, start.calibration.std) == (2.0, 1.0)
    assert said == []


def test_a_round_that_scores_without_the_reward_model_says_that_it_takes_the_policy(policy: Policy) -> None:
    start, said = loaded(policy)
    assert not head(start).any()
    assert said == ["round 1 scores without reward model 'taste'; the value model begins from the policy"]


def test_a_reward_model_of_other_tokens_is_refused(policy: Policy, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(policy.path)
    tokenizer.add_tokens(["<more>"])
    folder = save_model(tmp_path / "taste", tokenizer)
    with pytest.raises(ConfigError, match=r"method.value_model='taste': its tokenizer is not the policy's.*use policy"):
        loaded(policy, folder=folder)


def test_it_is_warmed_up_on_the_policys_own_scored_responses(policy: Policy, tmp_path: Path) -> None:
    start, said = loaded(policy, value_model="policy", samples=write_samples(tmp_path, policy))
    assert start is not None
    # of ten, one is another policy's and one has no score; `digits` has the weight 0.5
    assert list(start.samples.rewards) == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5]
    assert [one.text for one in start.samples.completions] == list("01234567")
    assert said == []


def test_samples_of_other_policies_alone_warm_nothing_up_and_that_is_said(policy: Policy, tmp_path: Path) -> None:
    samples = write_samples(tmp_path, policy.model_copy(update={"id": "third"}))
    start, [said] = loaded(policy, value_model="policy", samples=samples)
    assert start is not None
    assert start.samples.completions == []
    assert "has no response of the policy that its rewards scored, so the value model is not warmed up" in said


def test_other_methods_have_no_value_model(policy: Policy) -> None:
    assert load_value_model(tiny(), 1, policy, load_tokenizer(policy.path), {}, None, pytest.fail) is None


def test_samples_are_an_input_of_the_stage(policy: Policy, tmp_path: Path) -> None:
    samples = write_samples(tmp_path, policy)
    spec = PolicySpec(
        config=tiny("method={kind: ppo}"), round=1, policy=policy, initial_policy=policy,
        problems=str(write_sums(tmp_path)), reward_models={}, samples=samples,
    )  # fmt: skip
    before = spec.inputs()
    with Path(samples.scores).open("a") as file:
        file.write("\n")
    after = spec.inputs()
    assert {name for name in before if before[name] != after[name]} == {"samples/scores"}
    assert not any("samples" in name for name in spec.model_copy(update={"samples": None}).inputs())
