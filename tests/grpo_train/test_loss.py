"""The loss against hand-worked numbers, and against TRL's in value and gradient."""

import math
from types import SimpleNamespace

import pytest
import torch

from grpo_train.loss import grpo_loss, k3


def test_on_policy_loss_is_minus_the_advantage_with_the_gradient_of_the_logprob():
    logprobs = torch.tensor([[-1.0, -2.0], [-3.0, -4.0]], requires_grad=True)
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    loss = grpo_loss(logprobs, torch.tensor([2.0, -1.0]), mask, num_responses=2)
    loss.value.backward()
    # ratio 1 everywhere: (-2 + 1) / 2; each token weighs advantage / tokens of its row / responses
    assert loss.value.item() == pytest.approx(-0.5)
    assert logprobs.grad.tolist() == [[-0.5, -0.5], [0.5, 0.0]]


def test_ratios_beyond_the_clip_range_have_no_gradient_where_the_advantage_pushes_on():
    old = torch.zeros(4, 1)
    logprobs = torch.log(torch.tensor([[1.5], [1.5], [0.5], [0.5]])).requires_grad_()
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0])
    loss = grpo_loss(logprobs, advantages, torch.ones(4, 1), num_responses=4, clip_range=0.2, old_logprobs=old)
    loss.value.backward()
    # min(1.5, 1.2), min(-1.5, -1.2), min(0.5, 0.8), min(-0.5, -0.8)
    assert loss.value.item() == pytest.approx(-(1.2 - 1.5 + 0.5 - 0.8) / 4)
    assert loss.clipped_tokens.item() == 2
    assert logprobs.grad.flatten().tolist() == pytest.approx([0.0, 1.5 / 4, -0.5 / 4, 0.0])


def test_kl_is_the_k3_estimate_with_its_coefficient():
    # d = log 2: 2 - log 2 - 1
    value = k3(torch.tensor([[-1.0]]), torch.tensor([[-1.0 + math.log(2)]]), torch.ones(1, 1))
    assert value.item() == pytest.approx(1 - math.log(2))
    loss = grpo_loss(
        torch.tensor([[-1.0]]),
        torch.tensor([0.0]),
        torch.ones(1, 1),
        num_responses=1,
        reference_logprobs=torch.tensor([[-1.0 + math.log(2)]]),
        kl_coefficient=0.5,
    )
    assert loss.value.item() == pytest.approx(0.5 * (1 - math.log(2)))


def test_micro_batches_add_up_to_the_batch():
    torch.manual_seed(0)
    logprobs, advantages = torch.randn(8, 5, dtype=torch.float64), torch.randn(8, dtype=torch.float64)
    mask = (torch.arange(5) < torch.randint(1, 6, (8, 1))).double()
    whole = grpo_loss(logprobs, advantages, mask, num_responses=8).value
    parts = [
        grpo_loss(logprobs[i : i + 1], advantages[i : i + 1], mask[i : i + 1], num_responses=8).value for i in range(8)
    ]
    assert sum(parts).item() == pytest.approx(whole.item(), rel=1e-12)


def test_padding_changes_nothing_even_where_it_would_overflow():
    logprobs, old = torch.tensor([[-1.0, 500.0]], requires_grad=True), torch.tensor([[-1.2, -500.0]])
    loss = grpo_loss(logprobs, torch.tensor([1.0]), torch.tensor([[1.0, 0.0]]), num_responses=1, old_logprobs=old)
    loss.value.backward()
    assert loss.value.item() == pytest.approx(-1.2)
    assert torch.isfinite(logprobs.grad).all()
    assert logprobs.grad[0, 1] == 0


@pytest.fixture(scope="module")
def trl_trainer(tmp_path_factory):
    """TRL's trainer around the small model, for its `_compute_loss`."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from grpo_train.tiny_model import build_tiny_model, build_tiny_tokenizer

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


@pytest.mark.parametrize("kl_coefficient", [0.0, 0.1])
@pytest.mark.parametrize("is_on_policy", [True, False])
def test_loss_and_gradient_equal_trls_on_a_random_padded_batch(trl_trainer, kl_coefficient, is_on_policy):
    from grpo_train.batches import MicroBatch, response_logprobs

    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(5, 90, (4, 12), generator=generator)
    prompt_mask = (torch.arange(5) >= torch.tensor([[0], [2], [1], [3]])).long()
    mask = (torch.arange(7) < torch.tensor([[7], [3], [5], [1]])).long()
    advantages = torch.tensor([1.3, -0.7, 0.4, -1.0])
    batch = MicroBatch([0, 1, 2, 3], ids[:, :5], prompt_mask, torch.arange(4), ids[:, 5:], mask.float())

    model = trl_trainer.model
    current = response_logprobs(model, batch, 0.8).detach()
    noise = lambda scale: current + scale * torch.randn(current.shape, generator=generator)  # noqa: E731
    old = None if is_on_policy else noise(0.4)
    reference = noise(0.3) if kl_coefficient else None
    trl_trainer.beta = kl_coefficient
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

    theirs, their_gradient = _value_and_gradient(model, lambda: trl_trainer._compute_loss(model, inputs))
    ours, our_gradient = _value_and_gradient(
        model,
        lambda: (
            grpo_loss(
                response_logprobs(model, batch, 0.8),
                advantages,
                batch.mask,
                num_responses=4,
                old_logprobs=old,
                reference_logprobs=reference,
                kl_coefficient=kl_coefficient,
            ).value
        ),
    )
    assert ours == pytest.approx(theirs, abs=1e-6)
    assert torch.allclose(our_gradient, their_gradient, atol=1e-6)
    assert our_gradient.norm() > 0.01


def _value_and_gradient(model, loss):
    model.zero_grad()
    value = loss()
    value.backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])
    return SimpleNamespace(v=value.item()).v, gradient.clone()
