"""The value model: where its values are read, its loss, and that micro-batches change nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from configs.errors import TrainingDiverged
from configs.records import Completion, Policy
from configs.schema.grpo import GrpoConfig
from configs.schema.methods.method import PpoMethod
from grpo_train.policies.model import save_policy
from grpo_train.updating.advantages import ValueTargets
from grpo_train.updating.critic import Critic, ValueModel, value_loss, value_metrics
from reward_training.reward_models.backbone import load_backbone
from tests.tiny_architectures import TOKENIZER, build


@pytest.fixture
def policy(tiny: tuple, tmp_path: Path) -> Policy:
    return save_policy(*tiny, tmp_path / "policy", round_index=0)


def response(prompt: list[int], tokens: list[int]) -> Completion:
    return Completion(
        problem_key="p", index=0, prompt_ids=prompt, token_ids=tokens, text="x", finish_reason="stop",
        logprobs=[-1.0] * len(tokens), policy_id="p", step=1, seed=0,
    )  # fmt: skip


RESPONSES = [
    response([6, 7, 8], [9, 10, 11, 4]),
    response([6, 7, 8], [9, 10, 4]),
    response([6, 7, 8], [12, 4]),
    response([20, 21, 22, 23, 24], [4]),
]
TARGETS = ValueTargets(
    tuple(np.zeros(len(one.token_ids)) for one in RESPONSES),
    tuple(np.full(len(one.token_ids), reward) for one, reward in zip(RESPONSES, (1.0, 0.0, -1.0, 2.0), strict=True)),
)


def critic_of(model: PreTrainedModel, *, micro_batch_tokens: int = 4096, **settings: object) -> Critic:
    grpo = GrpoConfig(precision="float32", micro_batch_tokens=micro_batch_tokens)
    method = PpoMethod.model_validate({"value_learning_rate": 1e-2} | settings)
    return Critic(ValueModel(model, None), method, grpo, torch.device("cpu"))


def weights(critic: Critic) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in critic.model.parameters()])


def test_a_value_is_the_score_of_what_was_written_before_the_token(policy: Policy) -> None:
    model = load_backbone(Path(policy.path), seed=1)
    values = critic_of(model).values(RESPONSES)
    for one, row in zip(RESPONSES, values, strict=True):
        assert len(row) == len(one.token_ids)
        for t, value in enumerate(row):
            seen = torch.tensor([[*one.prompt_ids, *one.token_ids[:t]]])
            with torch.no_grad():
                assert value == pytest.approx(float(model(input_ids=seen).logits), rel=1e-4, abs=1e-5)
    assert np.std(np.concatenate(values)) > 1e-3


@pytest.mark.parametrize("model_type", ["gpt2", "mistral", "mamba", "gpt_neox"])
def test_other_architectures_get_the_same_values(model_type: str, tmp_path: Path) -> None:
    """Learned positions, a window of attention, no attention, and a head that is ours."""
    causal = build(model_type)
    causal.save_pretrained(str(tmp_path / "model"))
    TOKENIZER.save_pretrained(str(tmp_path / "model"))
    model = load_backbone(tmp_path / "model", seed=1)
    for one, row in zip(RESPONSES, critic_of(model).values(RESPONSES), strict=True):
        for t, value in enumerate(row):
            seen = torch.tensor([[*one.prompt_ids, *one.token_ids[:t]]])
            with torch.no_grad():
                assert value == pytest.approx(float(model(input_ids=seen).logits), rel=1e-3, abs=1e-4)


def test_micro_batches_do_not_change_values_or_update(policy: Policy) -> None:
    whole, split = (critic_of(load_backbone(Path(policy.path), seed=1), micro_batch_tokens=size) for size in (4096, 1))
    np.testing.assert_allclose(
        np.concatenate(whole.values(RESPONSES)), np.concatenate(split.values(RESPONSES)), rtol=1e-4, atol=1e-6
    )
    one, other = (critic.learn(RESPONSES, TARGETS) for critic in (whole, split))
    assert one == pytest.approx(other, rel=1e-4, abs=1e-6)


def test_values_end_at_the_mean_return_of_what_was_written_so_far(policy: Policy) -> None:
    """What is equal up to a token has one value before it: squares about the mean are left where the returns differ."""
    critic = critic_of(load_backbone(Path(policy.path), seed=1), value_clip=None, value_learning_rate=3e-3)
    for _ in range(120):
        loss = critic.learn(RESPONSES, TARGETS)["value/loss"]
    # returns 1, 0, -1 before the first token: squares 2; 1, 0 before the second and the third: 0.5 each; the others are known.
    # Half of the mean over 10 tokens: 3 / 10 / 2
    assert loss == pytest.approx(0.15, abs=0.02)
    values = critic.values(RESPONSES)
    assert values[0] == pytest.approx([0.0, 0.5, 0.5, 1.0], abs=0.15)
    assert values[2] == pytest.approx([0.0, -1.0], abs=0.15)
    assert values[3] == pytest.approx([2.0], abs=0.15)


def test_responses_of_unknown_return_are_not_learned_from(policy: Policy) -> None:
    returns = (*TARGETS.returns[:3], np.full(1, np.nan))
    all_rows, known = (critic_of(load_backbone(Path(policy.path), seed=1)) for _ in range(2))
    all_rows.learn(RESPONSES, ValueTargets(TARGETS.values, returns))
    known.learn(RESPONSES[:3], ValueTargets(TARGETS.values[:3], TARGETS.returns[:3]))
    assert torch.equal(weights(all_rows), weights(known))
    assert known.learn(RESPONSES[3:], ValueTargets(TARGETS.values[3:], returns[3:])) == {}


def test_clipping_holds_back_values_that_moved_within_a_step(policy: Policy) -> None:
    """With several updates on the same responses the later ones find values that have moved away from those before."""
    free, held = (
        critic_of(load_backbone(Path(policy.path), seed=1), value_clip=clip, value_updates=6, value_learning_rate=0.03)
        for clip in (None, 0.05)
    )
    metrics = []
    for critic in (free, held):
        targets = ValueTargets(tuple(critic.values(RESPONSES)), TARGETS.returns)
        metrics.append(critic.learn(RESPONSES, targets))
    assert metrics[0]["value/clip_fraction"] == 0.0
    assert metrics[1]["value/clip_fraction"] > 0.3


def test_the_loss_is_the_larger_of_both_errors() -> None:
    values, before, mask = torch.tensor([[0.5, 0.5, 0.5]]), torch.zeros(1, 3), torch.tensor([[1.0, 1.0, 0.0]])
    returns = torch.tensor([[1.0, -1.0, 9.0]])
    # clipped to 0.2. To 1: errors 0.25 and, clipped, 0.64; to -1: 2.25 and 1.44; the last is padding
    loss, clipped = value_loss(values, returns, mask, before, 0.2)
    assert float(loss) == pytest.approx((0.64 + 2.25) / 2)
    assert float(clipped) == 1.0
    loss, clipped = value_loss(values, returns, mask, before, None)
    assert float(loss) == pytest.approx((0.25 + 2.25) / 2)
    assert float(clipped) == 0.0


def test_explained_variance_is_1_for_right_values_0_for_a_constant_and_absent_without_variance() -> None:
    returns = (np.array([1.0, 1.0]), np.array([0.0]))
    assert value_metrics(ValueTargets(returns, returns))["value/explained_variance"] == 1.0
    constant = (np.array([0.4, 0.4]), np.array([0.4]))
    assert value_metrics(ValueTargets(constant, returns))["value/explained_variance"] == pytest.approx(0.0)
    assert value_metrics(ValueTargets(returns, constant)).keys() == {"value/mean"}


def test_a_loss_that_is_not_finite_reaches_no_weight(policy: Policy) -> None:
    critic = critic_of(load_backbone(Path(policy.path), seed=1))
    before = weights(critic)
    infinite = ValueTargets(TARGETS.values, tuple(np.full(len(row), np.inf) for row in TARGETS.returns))
    with pytest.raises(TrainingDiverged, match=r"value model's loss is inf.*value_learning_rate"):
        critic.learn(RESPONSES, infinite)
    assert torch.equal(weights(critic), before)
