"""Checks that Regroup and TRL compute the same loss and gradient, so that the benchmarks time the same mathematics."""

from __future__ import annotations

from collections.abc import Sequence
from tempfile import TemporaryDirectory

import numpy as np
import torch
from transformers import PreTrainedModel
from trl.trainer.grpo_trainer import GRPOTrainer

from benchmarks.contestant import open_student, trl_trainer
from benchmarks.workloads import WORKLOADS, in_order
from configs.records import Completion
from configs.schema.config import Config
from grpo_train.sampling.generation import Sampling, sample
from grpo_train.updating.loss import BatchSize, policy_loss
from grpo_train.updating.response_logprobs import micro_batches, response_logprobs

TOKENS = 16


def losses_agree() -> str:
    """A line with both loss values and the relative distance of the gradients, in float32.

    Raises:
        AssertionError: they differ by more than rounding.
    """
    workload = WORKLOADS["natural"]
    student = open_student(workload, workload.settings())
    batch_problems = in_order(student.problems["train"], student.config, 1)
    sampling = Sampling(workload.group_size, 0.8, TOKENS)
    completions = sample(student.model, student.tokenizer, batch_problems, sampling, seed=0, policy_id="base")
    advantages = torch.tensor(np.random.default_rng(0).normal(size=len(completions)), dtype=torch.float32)
    advantages = advantages.to(student.model.device)
    ours, our_gradient = _ours(student.model, student.config, completions, advantages)
    with TemporaryDirectory() as scratch:
        trainer = trl_trainer(student, micro_batch=8, bf16=False, scratch=scratch)
        theirs, their_gradient = _theirs(trainer, completions, advantages)
    distance = ((our_gradient - their_gradient).norm() / their_gradient.norm()).item()
    assert abs(ours - theirs) < 1e-5, f"ours is {ours}, TRL's {theirs}"
    assert distance < 1e-3, f"the gradients are {distance} of their norm apart"
    return f"{ours:.6f} and {theirs:.6f}, gradients {distance:.1e} of their norm apart"


def _ours(
    model: PreTrainedModel, config: Config, completions: Sequence[Completion], advantages: torch.Tensor
) -> tuple[float, torch.Tensor]:
    value = 0.0
    size = BatchSize(len(completions), sum(len(completion.token_ids) for completion in completions))
    model.zero_grad()
    for batch in micro_batches(model, completions, range(len(completions)), 512):
        logprobs = response_logprobs(model, batch, config.grpo_config.temperature)
        loss = policy_loss(logprobs, advantages[batch.rows], batch.mask, grpo=config.grpo_config, size=size)
        loss.value.backward()  # type: ignore[no-untyped-call]
        value += loss.value.item()
    return value, _gradient(model)


def _theirs(
    trainer: GRPOTrainer, completions: Sequence[Completion], advantages: torch.Tensor
) -> tuple[float, torch.Tensor]:
    longest_prompt = max(len(completion.prompt_ids) for completion in completions)
    longest = max(len(completion.token_ids) for completion in completions)
    shape = len(completions), longest_prompt + longest
    ids, mask = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    for row, completion in enumerate(completions):
        tokens = [*completion.prompt_ids, *completion.token_ids]
        start = longest_prompt - len(completion.prompt_ids)
        ids[row, start : start + len(tokens)] = torch.tensor(tokens)
        mask[row, start : start + len(tokens)] = 1
    inputs = {
        "prompt_ids": ids[:, :longest_prompt],
        "prompt_mask": mask[:, :longest_prompt],
        "completion_ids": ids[:, longest_prompt:],
        "completion_mask": mask[:, longest_prompt:],
        "advantages": advantages,
        "num_items_in_batch": mask[:, longest_prompt:].sum(),
    }
    trainer.current_gradient_accumulation_steps = 1
    model = trainer.model
    assert isinstance(model, torch.nn.Module)
    inputs = {name: values.to(advantages.device) for name, values in inputs.items()}
    model.zero_grad()
    loss = trainer._compute_loss(model, inputs)  # type: ignore[no-untyped-call]
    loss.backward()
    return loss.item(), _gradient(model)


def _gradient(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])


if __name__ == "__main__":
    print(f"losses agree: {losses_agree()}")
