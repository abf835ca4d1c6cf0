"""Computes log-probabilities of responses, in training with their gradient.

Prompts and responses are packed into rows in which each shared prefix is computed once
(`reward_training.transformer.packing`): the start of the chat template, the prompt of a group, and the first tokens
that its responses share. Logits are computed at response positions only, once for each distinct pair of position and
next token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from configs.errors import ConfigError
from configs.records import Completion
from grpo_train.updating.loss import k3, response_means
from reward_training.transformer.attention.kernels import fit_attention, restore_attention
from reward_training.transformer.packing import Packed, hidden_size, packed_batches, round_length, states_of
from reward_training.transformer.sharding import in_step, is_sharded, with_weights
from reward_training.transformer.token_logprobs import body_of, plain_head, token_logprobs
from reward_training.transformer.trial import layout_of
from reward_training.transformer.vocabulary_parallel.head import split_token_logprobs


@dataclass(frozen=True)
class MicroBatch:
    """Responses that go through the model together."""

    rows: list[int]
    """indices of the responses in the batch"""
    packed: Packed
    """prompt and response of each, without the last token"""
    response_ids: Tensor
    """(B, T), 0 on padding"""
    mask: Tensor
    """(B, T) float32, 1 on response tokens"""
    predicted_from: Tensor
    """(B, T) index into the flattened packed rows of the position that predicts each response token, 0 on padding"""


def micro_batches(
    model: PreTrainedModel,
    completions: Sequence[Completion],
    rows: Sequence[int],
    max_tokens: int,
    body: nn.Module | None = None,
) -> Iterator[MicroBatch]:
    """Micro-batches of the `rows` of `completions`, at most `max_tokens` positions each; a longer response is alone.

    `body` is the part of the model that runs on them; by default what `response_logprobs` runs.
    Of a sharded model, which all ranks run equally often, those with fewer rows end with micro-batches of no response.
    """
    runs = body_of(model) if body is None else body
    filled = _filled_batches(model, runs, completions, rows, max_tokens)
    return in_step(model, filled, partial(_empty_batch, model))


def _filled_batches(
    model: PreTrainedModel, body: nn.Module, completions: Sequence[Completion], rows: Sequence[int], max_tokens: int
) -> Iterator[MicroBatch]:
    sequences = [[*completions[row].prompt_ids, *completions[row].token_ids[:-1]] for row in rows]
    width = hidden_size(model)
    for indices, packed in packed_batches(
        sequences,
        width=width,
        layout_of=layout_of(model, body),
        max_tokens=max_tokens,
        in_one_run=is_sharded(model),
    ):
        batch_rows = [rows[i] for i in indices]
        yield _micro_batch([completions[row] for row in batch_rows], batch_rows, packed, model.device)


def _empty_batch(model: PreTrainedModel) -> MicroBatch:
    """No response, on the shortest row that the model can compute: every weight gets a gradient of 0."""
    (_, packed) = next(packed_batches([[0]], width=hidden_size(model), layout_of=lambda _: "plain", max_tokens=1))
    nothing = torch.zeros(0, 1, dtype=torch.long)
    return MicroBatch(
        [], packed.to(model.device), *(each.to(model.device) for each in (nothing, nothing.float(), nothing))
    )


def _micro_batch(completions: list[Completion], rows: list[int], packed: Packed, device: torch.device) -> MicroBatch:
    longest = max(len(completion.token_ids) for completion in completions)
    response_ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros(len(rows), longest)
    predicted_from = torch.zeros_like(response_ids)
    for i, completion in enumerate(completions):
        length, start = len(completion.token_ids), len(completion.prompt_ids) - 1
        response_ids[i, :length] = torch.tensor(completion.token_ids)
        mask[i, :length] = 1
        predicted_from[i, :length] = packed.nodes[i, start : start + length]
    return MicroBatch(rows, packed.to(device), response_ids.to(device), mask.to(device), predicted_from.to(device))


def response_logprobs(model: PreTrainedModel, batch: MicroBatch, temperature: float) -> Tensor:
    """(B, T) float32 log-probabilities of the response tokens under logits / temperature, 0 on padding."""
    return with_weights(model, partial(_response_logprobs, batch=batch, temperature=temperature))


def _response_logprobs(model: PreTrainedModel, batch: MicroBatch, temperature: float) -> Tensor:
    if batch.packed.attention_mask is None:
        restore_attention(model)
    else:
        fit_attention(model, batch.packed.input_ids.shape[1], batch.packed.attention_mask)
    head = plain_head(model)
    states = states_of(body_of(model), batch.packed, model.dtype)
    is_token = batch.mask.bool()
    positions, targets, inverse = _distinct(batch.predicted_from[is_token], batch.response_ids[is_token])
    predicting = states.index_select(0, positions)
    if head is None:
        values = -F.cross_entropy(predicting.float() / temperature, targets, reduction="none")
    elif isinstance(head, DTensor):
        values = split_token_logprobs(predicting, head, targets, temperature)
    else:
        values = token_logprobs(predicting, head, targets, temperature)
    return torch.zeros_like(batch.mask).masked_scatter(is_token, values.index_select(0, inverse))


def _distinct(positions: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Distinct (position, target) pairs, as two tensors, and the (N,) index of each given pair among them.

    The last pair is repeated up to a rounded length.
    """
    if not len(targets):
        return positions, targets, positions
    num_targets = int(targets.max()) + 1
    pairs, inverse = torch.unique(positions * num_targets + targets, return_inverse=True)
    pairs = torch.cat([pairs, pairs[-1:].expand(round_length(len(pairs)) - len(pairs))])
    return pairs // num_targets, pairs % num_targets, inverse


def padded_logprobs(completions: Sequence[Completion], batch: MicroBatch) -> Tensor:
    """(B, T) float32 log-probabilities that the sampler recorded, 0 on padding."""
    values = torch.zeros(batch.mask.shape)
    for i, row in enumerate(batch.rows):
        values[i, : len(completions[row].logprobs)] = torch.tensor(completions[row].logprobs)
    return values.to(batch.mask.device)


@torch.no_grad()
def known_logprobs(
    model: PreTrainedModel, completions: Sequence[Completion], *, max_tokens: int, temperature: float
) -> Iterator[tuple[MicroBatch, Tensor]]:
    """Log-probabilities of all responses under `model`, without gradient, one micro-batch at a time."""
    for batch in micro_batches(model, completions, range(len(completions)), max_tokens):
        yield batch, response_logprobs(model, batch, temperature)


def response_rows(
    model: PreTrainedModel, completions: Sequence[Completion], *, max_tokens: int, temperature: float
) -> list[list[float]]:
    """For each response, the log-probabilities of its tokens under `model`."""
    values: list[list[float]] = [[] for _ in completions]
    for batch, logprobs in known_logprobs(model, completions, max_tokens=max_tokens, temperature=temperature):
        for row, found in zip(batch.rows, logprobs.tolist(), strict=True):
            values[row] = found[: len(completions[row].token_ids)]
    return values


def sequence_logprobs(
    model: PreTrainedModel, sequences: Sequence[Sequence[int]], *, max_tokens: int
) -> list[list[float]]:
    """For each sequence of token ids, the log-probabilities of its tokens from the second on, at temperature 1."""
    responses = [as_response(token_ids[:1], token_ids[1:]) for token_ids in sequences]
    return response_rows(model, responses, max_tokens=max_tokens, temperature=1.0)


def as_response(prompt_ids: Sequence[int], token_ids: Sequence[int]) -> Completion:
    """Tokens that nobody sampled as a response to the ones before them."""
    return Completion(
        problem_key="",
        index=0,
        prompt_ids=list(prompt_ids),
        token_ids=list(token_ids),
        text="",
        finish_reason="length",
        logprobs=[],
        policy_id="",
        step=0,
        seed=0,
    )


def policy_kl(
    reference: PreTrainedModel, completions: Sequence[Completion], *, max_tokens: int, temperature: float
) -> list[float]:
    """For each response, the token mean of the k3 estimate of KL(sampling policy || reference), in nats per token."""
    values = [0.0] * len(completions)
    for batch, logprobs in known_logprobs(reference, completions, max_tokens=max_tokens, temperature=temperature):
        means = response_means(k3(padded_logprobs(completions, batch), logprobs, batch.mask), batch.mask)
        for row, value in zip(batch.rows, means.tolist(), strict=True):
            values[row] = value
    return values


def recompute_layers(model: PreTrainedModel) -> None:
    """Activation checkpointing: keep only each layer's input and recompute the rest in the backward pass.

    See arXiv 1604.06174, section 4.1. transformers' own switch works in training mode only, and the model that is
    differentiated here is the one that samples, in evaluation mode.

    Raises:
        ConfigError: the decoder has no `layers`.
    """
    layers = getattr(model.get_decoder(), "layers", None)  # type: ignore[no-untyped-call]
    if layers is None:
        raise ConfigError(
            f"grpo_config.activation_checkpointing does not know the layers of {type(model).__name__}; set it to false"
        )
    for layer in layers:
        layer.forward = partial(_recomputed, layer.forward)


def _recomputed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)
