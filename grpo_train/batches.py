"""What a step works on: the problems of each batch, micro-batches of similar length, and log-probabilities of responses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from configs.records import Completion, Problem
from configs.seeds import rng_for
from grpo_train.loss import k3, response_means


def problem_batches(problems: Sequence[Problem], num_per_batch: int, *, seed: int, round: int) -> Iterator[list[Problem]]:
    """Endless batches: pass after pass over `problems`, each in an order of its own, no problem twice in a batch.

    A batch that reaches over the end of a pass is filled from the next one, so nothing is dropped.

    Raises:
        ValueError: there are fewer problems than a batch holds.
    """
    if len(problems) < num_per_batch:
        raise ValueError(
            f"a batch asks {num_per_batch} problems (batch_size / group_size) and there are {len(problems)} to train on; "
            "lower grpo_config.batch_size or give more problems"
        )
    waiting: list[int] = []
    for epoch in count():
        order = rng_for(seed, "problem order", round=round, step=epoch).permutation(len(problems)).tolist()
        carried = set(waiting)
        waiting += [i for i in order if i not in carried] + [i for i in order if i in carried]
        while len(waiting) >= num_per_batch:
            yield [problems[i] for i in waiting[:num_per_batch]]
            waiting = waiting[num_per_batch:]


@dataclass(frozen=True)
class MicroBatch:
    """Rows that go through the model together: prompts left-padded, responses right-padded."""

    rows: list[int]
    """places in the batch"""
    input_ids: Tensor
    """(B, P + T)"""
    attention_mask: Tensor
    """(B, P + T)"""
    mask: Tensor
    """(B, T) 1 on response tokens"""


def micro_batches(
    completions: Sequence[Completion], rows: Sequence[int], size: int, device: torch.device
) -> Iterator[MicroBatch]:
    """The `rows` of `completions`, longest first, `size` at a time, each trimmed to its own width."""
    ordered = sorted(rows, key=lambda row: (-len(completions[row].token_ids), -len(completions[row].prompt_ids), row))
    for start in range(0, len(ordered), size):
        yield _pad(completions, ordered[start : start + size], device)


def _pad(completions: Sequence[Completion], rows: list[int], device: torch.device) -> MicroBatch:
    prompt_width = max(len(completions[row].prompt_ids) for row in rows)
    width = max(len(completions[row].token_ids) for row in rows)
    ids = torch.zeros(len(rows), prompt_width + width, dtype=torch.long)
    attention = torch.zeros_like(ids)
    for line, row in enumerate(rows):
        completion = completions[row]
        start, end = prompt_width - len(completion.prompt_ids), prompt_width + len(completion.token_ids)
        ids[line, start:end] = torch.tensor([*completion.prompt_ids, *completion.token_ids])
        attention[line, start:end] = 1
    return MicroBatch(rows, ids.to(device), attention.to(device), attention[:, prompt_width:].float().to(device))


def padded_logprobs(completions: Sequence[Completion], batch: MicroBatch) -> Tensor:
    """(B, T) float32 log-probabilities that the sampler recorded, 0 on padding."""
    values = torch.zeros(batch.mask.shape)
    for line, row in enumerate(batch.rows):
        values[line, : len(completions[row].logprobs)] = torch.tensor(completions[row].logprobs)
    return values.to(batch.mask.device)


def response_logprobs(model: torch.nn.Module, batch: MicroBatch, temperature: float) -> Tensor:
    """(B, T) float32 log-probabilities of the response tokens under logits / temperature; arbitrary on padding."""
    width = batch.mask.shape[1]
    positions = (batch.attention_mask.cumsum(dim=1) - 1).clamp(min=0)
    logits = model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=positions,
        logits_to_keep=width + 1,
        use_cache=False,
    ).logits[:, :-1]
    scaled = logits.float() / temperature
    targets = batch.input_ids[:, -width:]
    return -F.cross_entropy(scaled.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)


@torch.inference_mode()
def policy_kl(
    reference: PreTrainedModel, completions: Sequence[Completion], *, size: int, temperature: float
) -> list[float]:
    """For each response, the token mean of the k3 estimate of KL(policy that sampled || reference), in nats a token."""
    values = [0.0] * len(completions)
    for batch in micro_batches(completions, range(len(completions)), size, reference.device):
        logprobs = response_logprobs(reference, batch, temperature)
        means = response_means(k3(padded_logprobs(completions, batch), logprobs, batch.mask), batch.mask)
        for row, value in zip(batch.rows, means.tolist(), strict=True):
            values[row] = value
    return values
