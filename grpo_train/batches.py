"""What an update works on: prompts, and micro-batches of responses of similar length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from configs.records import Completion


@dataclass(frozen=True)
class MicroBatch:
    """Responses of similar length that go through the model together, right-padded."""

    rows: list[int]
    """places in the batch"""
    prompt_of: Tensor
    """(B,) which of the block's prompts each response answers"""
    response_ids: Tensor
    """(B, T)"""
    mask: Tensor
    """(B, T) float32, 1 on response tokens"""


@dataclass(frozen=True)
class PromptBlock:
    """Distinct prompts that are computed once, left-padded, and the micro-batches of the responses to them."""

    prompt_ids: Tensor
    """(P, L)"""
    prompt_mask: Tensor
    """(P, L) 1 on prompt tokens"""
    micro_batches: list[MicroBatch]

    @property
    def num_computed(self) -> int:
        """Positions that its forward passes go over."""
        return self.prompt_ids.numel() + sum(batch.response_ids.numel() for batch in self.micro_batches)

    @property
    def num_tokens(self) -> int:
        """Those of them that hold a token."""
        return int(self.prompt_mask.sum()) + sum(int(batch.mask.sum()) for batch in self.micro_batches)


def prompt_blocks(
    completions: Sequence[Completion], rows: Sequence[int], max_tokens: int, device: torch.device
) -> Iterator[PromptBlock]:
    """The `rows` of `completions`: at most `max_tokens` of prompts a block and of responses a micro-batch, with padding.

    A prompt or response that is longer is alone. Within a block responses are sorted by length, whatever their prompt.
    """
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for row in rows:
        by_prompt.setdefault(tuple(completions[row].prompt_ids), []).append(row)
    prompts = sorted(by_prompt, key=lambda prompt: (-len(prompt), by_prompt[prompt][0]))
    for some in _cut([len(prompt) for prompt in prompts], max_tokens):
        ids, mask = _pad(prompts[some], left=True)
        place = {row: number for number, prompt in enumerate(prompts[some]) for row in by_prompt[prompt]}
        by_length = sorted(place, key=lambda row: (-len(completions[row].token_ids), row))
        cuts = _cut([len(completions[row].token_ids) for row in by_length], max_tokens)
        batches = [_micro_batch(completions, by_length[cut], place, device) for cut in cuts]
        yield PromptBlock(ids.to(device), mask.to(device), batches)


PASS_COST = 128
"""tokens that take as long as what a pass costs whatever its size: the weights' gradients, about 0.25 s on two cores"""


def _cut(lengths: Sequence[int], max_tokens: int) -> list[slice]:
    """The cheapest runs of sequences, longest first, of at most `max_tokens` when padded to the first of the run.

    A run costs its tokens, padding included, and PASS_COST. A sequence over `max_tokens` is alone.
    """
    cheapest = [(0, 0)]
    """for each end: the cost of all runs before it, and where the last of them begins"""
    for end in range(1, len(lengths) + 1):
        found: list[tuple[int, int]] = []
        for start in range(end - 1, -1, -1):
            tokens = lengths[start] * (end - start)
            if found and tokens > max_tokens:
                break
            found.append((cheapest[start][0] + tokens + PASS_COST, start))
        cheapest.append(min(found))
    runs: list[slice] = []
    end = len(lengths)
    while end:
        runs.insert(0, slice(cheapest[end][1], end))
        end = cheapest[end][1]
    return runs


def _micro_batch(
    completions: Sequence[Completion], rows: list[int], place: dict[int, int], device: torch.device
) -> MicroBatch:
    response_ids, mask = _pad([completions[row].token_ids for row in rows], left=False)
    prompt_of = torch.tensor([place[row] for row in rows], device=device)
    return MicroBatch(rows, prompt_of, response_ids.to(device), mask.float().to(device))


def _pad(sequences: Sequence[Sequence[int]], *, left: bool) -> tuple[Tensor, Tensor]:
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
