"""What an update works on: micro-batches of responses of similar length, and the log-probabilities of their tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from configs.records import Completion
from grpo_train.attention import fit_attention
from grpo_train.loss import k3, response_means
from grpo_train.token_logprobs import plain_head, token_logprobs


@dataclass(frozen=True)
class MicroBatch:
    """Responses that go through the model together: each distinct prompt once, left-padded, and the responses right-padded."""

    rows: list[int]
    """places in the batch"""
    prompt_ids: Tensor
    """(P, L)"""
    prompt_mask: Tensor
    """(P, L) 1 on prompt tokens"""
    prompt_of: Tensor
    """(B,) which of the P prompts each response answers"""
    response_ids: Tensor
    """(B, T)"""
    mask: Tensor
    """(B, T) float32, 1 on response tokens"""

    @property
    def num_computed(self) -> int:
        """Positions that a forward pass goes over."""
        return self.prompt_ids.numel() + self.response_ids.numel()

    @property
    def num_tokens(self) -> int:
        """Those of them that hold a token."""
        return int(self.prompt_mask.sum()) + int(self.mask.sum())


def micro_batches(
    completions: Sequence[Completion], rows: Sequence[int], max_tokens: int, device: torch.device
) -> Iterator[MicroBatch]:
    """The `rows` of `completions`, each batch trimmed to its own width and at most `max_tokens` with padding.

    Groups stay together, so that they share their prompt, and come in the order of their longest response. A response that
    is longer than `max_tokens` is a batch of its own.
    """
    longest: dict[str, int] = {}
    for row in rows:
        key = completions[row].problem_key
        longest[key] = max(longest.get(key, 0), len(completions[row].token_ids))
    ordered = sorted(rows, key=lambda row: (-longest[completions[row].problem_key], row))
    taken: list[int] = []
    for row in ordered:
        if taken and _num_tokens(completions, [*taken, row]) > max_tokens:
            yield _micro_batch(completions, taken, device)
            taken = []
        taken.append(row)
    if taken:
        yield _micro_batch(completions, taken, device)


def _num_tokens(completions: Sequence[Completion], rows: Sequence[int]) -> int:
    """What a micro-batch computes: its prompts and its responses, padded."""
    prompts = {tuple(completions[row].prompt_ids) for row in rows}
    responses = [len(completions[row].token_ids) for row in rows]
    return len(prompts) * max(map(len, prompts)) + len(responses) * max(responses)


def _micro_batch(completions: Sequence[Completion], rows: list[int], device: torch.device) -> MicroBatch:
    # by what was asked, not by the problem: templates ask the same one in several wordings
    prompts = dict.fromkeys(tuple(completions[row].prompt_ids) for row in rows)
    places = {prompt: place for place, prompt in enumerate(prompts)}
    prompt_ids, prompt_mask = _pad([list(prompt) for prompt in prompts], left=True)
    response_ids, mask = _pad([completions[row].token_ids for row in rows], left=False)
    return MicroBatch(
        rows=rows,
        prompt_ids=prompt_ids.to(device),
        prompt_mask=prompt_mask.to(device),
        prompt_of=torch.tensor([places[tuple(completions[row].prompt_ids)] for row in rows], device=device),
        response_ids=response_ids.to(device),
        mask=mask.float().to(device),
    )


def _pad(sequences: Sequence[list[int]], *, left: bool) -> tuple[Tensor, Tensor]:
    """Ids and mask, both (B, longest), int64."""
    width = max(len(sequence) for sequence in sequences)
    ids = torch.zeros(len(sequences), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for line, sequence in enumerate(sequences):
        start = width - len(sequence) if left else 0
        ids[line, start : start + len(sequence)] = torch.tensor(sequence)
        mask[line, start : start + len(sequence)] = 1
    return ids, mask


def padded_logprobs(completions: Sequence[Completion], batch: MicroBatch) -> Tensor:
    """(B, T) float32 log-probabilities that the sampler recorded, 0 on padding."""
    values = torch.zeros(batch.mask.shape)
    for line, row in enumerate(batch.rows):
        values[line, : len(completions[row].logprobs)] = torch.tensor(completions[row].logprobs)
    return values.to(batch.mask.device)


def response_logprobs(model: PreTrainedModel, batch: MicroBatch, temperature: float) -> Tensor:
    """(B, T) float32 log-probabilities of the response tokens under logits / temperature, 0 on padding.

    Each prompt is computed once; its keys and values are repeated for its responses, and gradients flow back through them.
    """
    fit_attention(model, batch.prompt_ids.shape[1] + batch.response_ids.shape[1])
    head = plain_head(model)
    if head is None:
        logits = torch.cat(_outputs(model, batch), dim=1).float() / temperature
        logprobs = -F.cross_entropy(logits.flatten(0, 1), batch.response_ids.flatten(), reduction="none")
        return logprobs.view_as(batch.mask) * batch.mask
    real = batch.mask.bool()
    decoder = model.get_decoder()  # type: ignore[no-untyped-call]
    states = torch.cat(_outputs(decoder, batch), dim=1)[real]
    found = token_logprobs(states, head, batch.response_ids[real], temperature)
    return torch.zeros_like(batch.mask).masked_scatter(real, found)


def _outputs(model: torch.nn.Module, batch: MicroBatch) -> list[Tensor]:
    """Logits, or a decoder's last hidden states, from which each response token is predicted: (B, 1, .) and (B, T - 1, .)."""
    cache = DynamicCache()
    after_prompt = _output(
        model,
        input_ids=batch.prompt_ids,
        attention_mask=batch.prompt_mask,
        position_ids=(batch.prompt_mask.cumsum(dim=1) - 1).clamp(min=0),
        past_key_values=cache,
    )[batch.prompt_of, -1:]
    if batch.response_ids.shape[1] == 1:
        return [after_prompt]
    cache.batch_select_indices(batch.prompt_of)
    prompt_mask = batch.prompt_mask[batch.prompt_of]
    ids = batch.response_ids[:, :-1]
    after_response = _output(
        model,
        input_ids=ids,
        attention_mask=torch.cat([prompt_mask, batch.mask[:, :-1].long()], dim=1),
        position_ids=prompt_mask.sum(dim=1, keepdim=True) + torch.arange(ids.shape[1], device=ids.device),
        past_key_values=cache,
    )
    return [after_prompt, after_response]


def _output(model: torch.nn.Module, **inputs: Any) -> Tensor:
    output = model(use_cache=True, **inputs)
    found: Tensor = output.logits if "logits" in output else output.last_hidden_state
    return found


@torch.inference_mode()
def policy_kl(
    reference: PreTrainedModel, completions: Sequence[Completion], *, max_tokens: int, temperature: float
) -> list[float]:
    """For each response, the token mean of the k3 estimate of KL(policy that sampled || reference), in nats a token."""
    values = [0.0] * len(completions)
    for batch in micro_batches(completions, range(len(completions)), max_tokens, reference.device):
        logprobs = response_logprobs(reference, batch, temperature)
        means = response_means(k3(padded_logprobs(completions, batch), logprobs, batch.mask), batch.mask)
        for row, value in zip(batch.rows, means.tolist(), strict=True):
            values[row] = value
    return values
