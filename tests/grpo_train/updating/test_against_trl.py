"""Losses (value and gradient) and advantages equal those of TRL's trainers, wherever TRL has the formula."""

from typing import Any

import numpy as np
import pytest
import torch

from configs.schema.grpo import GrpoConfig
from grpo_train.updating.advantages import group_advantages
from grpo_train.updating.loss import BatchSize, Loss, policy_loss
from grpo_train.updating.response_logprobs import micro_batches, response_logprobs
from tests.grpo_train.updating.test_response_logprobs import completion


@pytest.fixture(scope="module")
def trl_trainer(tmp_path_factory):
    """TRL's trainer around the small model, for its `_compute_loss`."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from grpo_train.policies.tiny_model import build_tiny_model, build_tiny_tokenizer

    tokenizer = build_tiny_tokenizer()
    args = GRPOConfig(
        output_dir=str(tmp_path_factory.mktemp("trl")),
        num_generations=2,
        per_device_train_batch_size=4,
        report_to=[],
        use_cpu=True,
        bf16=False,
        activation_checkpointing=False,
        temperature=0.8,
        loss_type="grpo",
        use_bias_correction_kl=False,
    )
    trainer = GRPOTrainer(
        model=build_tiny_model(tokenizer),
        reward_funcs=lambda completions, **kwargs: [0.0] * len(completions),
        args=args,
        train_dataset=Dataset.from_dict({"prompt": ["a", "b"]}),
        processing_class=tokenizer,
    )
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    return trainer


def set_like(trainer: Any, grpo: GrpoConfig) -> None:
    """TRL's names for our settings; its cispo bounds the ratio itself, not its distance from 1."""
    high = grpo.clip_range if grpo.clip_range_high is None else grpo.clip_range_high
    trainer.loss_type = "grpo" if grpo.loss == "gspo" else grpo.loss
    trainer.importance_sampling_level = "sequence" if grpo.loss == "gspo" else "token"
    trainer.epsilon_low, trainer.epsilon_high = grpo.clip_range, 1 + high if grpo.loss == "cispo" else high
    trainer.args.delta, trainer.beta = grpo.dual_clip, grpo.kl_coefficient
    trainer.max_completion_length = grpo.max_response_length


ON_POLICY: dict[str, float] = {}
OFF_POLICY = {"clip_range": 0.1, "clip_range_high": 0.15, "dual_clip": 1.2, "kl_coefficient": 0.1}


@pytest.mark.parametrize("more", [ON_POLICY, OFF_POLICY], ids=["on_policy", "off_policy"])
@pytest.mark.parametrize("name", ["grpo", "dapo", "bnpo", "dr_grpo", "gspo", "cispo"])
def test_loss_and_gradient_equal_trls_on_a_random_padded_batch(trl_trainer, name, more):
    grpo = GrpoConfig.model_validate({"loss": name, **more} | ({"dual_clip": None} if name == "cispo" else {}))
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(5, 90, (4, 12), generator=generator)
    prompt_mask = (torch.arange(5) >= torch.tensor([[0], [2], [1], [3]])).long()
    mask = (torch.arange(7) < torch.tensor([[7], [3], [5], [1]])).long()
    advantages = torch.tensor([1.3, -0.7, 0.4, -1.0])
    rows = zip(ids, prompt_mask.bool(), mask.bool(), strict=True)
    completions = [completion(row[:5][seen].tolist(), row[5:][written].tolist()) for row, seen, written in rows]

    set_like(trl_trainer, grpo)
    model = trl_trainer.model
    (batch,) = micro_batches(model, completions, range(4), 1000)
    current = response_logprobs(model, batch, 0.8).detach()
    noise = lambda scale: current + scale * torch.randn(current.shape, generator=generator)  # noqa: E731
    old = noise(0.4) if more else None
    reference = noise(0.3) if grpo.kl_coefficient else None
    inputs = {
        "prompt_ids": ids[:, :5],
        "prompt_mask": prompt_mask,
        "completion_ids": ids[:, 5:],
        "completion_mask": mask,
        "advantages": advantages,
        "num_items_in_batch": mask.sum(),
    }
    inputs |= {} if old is None else {"old_per_token_logps": old}
    inputs |= {} if reference is None else {"ref_per_token_logps": reference}

    def ours() -> Loss:
        return policy_loss(
            response_logprobs(model, batch, 0.8),
            advantages,
            batch.mask,
            grpo=grpo,
            size=BatchSize(4, int(mask.sum())),
            old_logprobs=old,
            reference_logprobs=reference,
        )

    their_value, their_gradient = _value_and_gradient(model, trl_trainer._compute_loss(model, inputs))
    loss = ours()
    our_value, our_gradient = _value_and_gradient(model, loss.value)
    assert our_value == pytest.approx(their_value, abs=1e-6)
    assert torch.allclose(our_gradient, their_gradient, atol=1e-6)
    assert our_gradient.norm() > 1e-4
    assert (loss.clipped_low + loss.clipped_high > 0) == bool(more)


def _value_and_gradient(model: torch.nn.Module, loss: torch.Tensor) -> tuple[float, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])
    return loss.item(), gradient.clone()


def rewards_with_gaps(num_objectives: int = 1) -> np.ndarray:
    """Six groups of 4; with one objective some completions are unscored and the last group has a single scored one."""
    parts = np.random.default_rng(3).normal(size=(24, num_objectives))
    if num_objectives == 1:
        parts[[1, 6, 7, 20, 21, 23]] = np.nan
    return parts


def test_leave_one_out_equals_trls_rloo_trainer():
    """The formula of RLOOTrainer, without KL in the reward and without normalising over the batch."""
    rewards = torch.tensor(rewards_with_gaps()[:, 0])
    grouped = rewards.view(-1, 4)
    others = (~torch.isnan(grouped)).sum(dim=1, keepdim=True) - 1
    baselines = (torch.nansum(grouped, dim=1, keepdim=True) - grouped) / others
    expected = torch.nan_to_num(rewards - baselines.view(-1), nan=0.0)
    ours = group_advantages(rewards_with_gaps(), np.ones(1), 4, scale="none", baseline="leave_one_out")
    assert ours.values == pytest.approx(expected.numpy(), abs=1e-12)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_each_scale_equals_trls_grpo_trainer(scale):
    from trl.trainer.utils import nanstd

    rewards = torch.tensor(rewards_with_gaps()[:, 0])
    grouped = rewards.view(-1, 4)
    centered = rewards - torch.nanmean(grouped, dim=1).repeat_interleave(4)
    std = {
        "group": nanstd(grouped, dim=1).repeat_interleave(4),
        "batch": nanstd(rewards).expand_as(rewards),
        "none": torch.ones_like(rewards) - 1e-4,
    }[scale]
    expected = torch.nan_to_num(centered / (std + 1e-4), nan=0.0)
    assert group_advantages(rewards_with_gaps(), np.ones(1), 4, scale=scale).values == pytest.approx(
        expected.numpy(), abs=1e-6
    )


def test_normalise_then_sum_equals_trls():
    parts, weights = rewards_with_gaps(3), np.array([1.0, 0.5, -2.0])
    grouped = torch.tensor(parts).view(-1, 4, 3)
    normalized = (grouped - grouped.mean(dim=1, keepdim=True)) / (grouped.std(dim=1, keepdim=True) + 1e-4)
    summed = (normalized * torch.tensor(weights)).sum(dim=2).flatten()
    expected = (summed - summed.mean()) / (summed.std() + 1e-4)
    ours = group_advantages(parts, weights, 4, order="normalize_then_sum")
    assert ours.values == pytest.approx(expected.numpy(), abs=1e-6)
