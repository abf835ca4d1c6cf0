"""Log-probabilities of responses, in training with their gradient.

Prompts and responses go through the model in rows in which each common beginning is computed once (`reward_training.transformer.packing`): the chat
template's first words, the prompt of a group, and the words that its responses begin with. Logits are computed on response
positions alone, once for each different next token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from configs.errors import ConfigError
from configs.records import Completion
from grpo_train.objective.loss import k3, response_means
from reward_training.transformer.attention import fit_attention
from reward_training.transformer.packing import (
    Packed,
    hidden_size,
    outputs_of,
    packed_batches,
    round_length,
    shares_beginnings,
)
from reward_training.transformer.token_logprobs import plain_head, token_logprobs


@dataclass(frozen=True)
class MicroBatch:
    """Responses that go through the model together."""

    rows: list[int]
    """places in the batch"""
    packed: Packed
    """each one's prompt and response, but for the last token"""
    response_ids: Tensor
    """(B, T), 0 on padding"""
    mask: Tensor
    """(B, T) float32, 1 on response tokens"""
    predicted_from: Tensor
    """(B, T) at which position of the packed rows each response token is predicted, 0 on padding"""


def micro_batches(
    model: PreTrainedModel, completions: Sequence[Completion], rows: Sequence[int], max_tokens: int
) -> Iterator[MicroBatch]:
    """The `rows` of `completions`, with at most `max_tokens` positions a micro-batch; a response that is longer is alone."""
    sequences = [[*completions[row].prompt_ids, *completions[row].token_ids[:-1]] for row in rows]
    share, width = shares_beginnings(model, model.get_decoder()), hidden_size(model)  # type: ignore[no-untyped-call]
    for numbers, packed in packed_batches(sequences, width=width, share=share, max_tokens=max_tokens):
        some = [rows[number] for number in numbers]
        yield _micro_batch([completions[row] for row in some], some, packed, model.device)


def _micro_batch(completions: list[Completion], rows: list[int], packed: Packed, device: torch.device) -> MicroBatch:
    longest = max(len(completion.token_ids) for completion in completions)
    response_ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros(len(rows), longest)
    predicted_from = torch.zeros_like(response_ids)
    for line, completion in enumerate(completions):
        length, before = len(completion.token_ids), len(completion.prompt_ids) - 1
        response_ids[line, :length] = torch.tensor(completion.token_ids)
        mask[line, :length] = 1
        predicted_from[line, :length] = packed.nodes[line, before : before + length]
    return MicroBatch(rows, packed.to(device), response_ids.to(device), mask.to(device), predicted_from.to(device))


def response_logprobs(model: PreTrainedModel, batch: MicroBatch, temperature: float) -> Tensor:
    """(B, T) float32 log-probabilities of the response tokens under logits / temperature, 0 on padding."""
    fit_attention(model, batch.packed.input_ids.shape[1])
    head = plain_head(model)
    body: Any = model if head is None else model.get_decoder()  # type: ignore[no-untyped-call]
    outputs = outputs_of(body, batch.packed, model.dtype)
    states: Tensor = (outputs.logits if head is None else outputs.last_hidden_state).flatten(0, 1)
    real = batch.mask.bool()
    places, targets, inverse = _distinct(batch.predicted_from[real], batch.response_ids[real])
    predicting = states.index_select(0, places)
    if head is None:
        values = -F.cross_entropy(predicting.float() / temperature, targets, reduction="none")
    else:
        values = token_logprobs(predicting, head, targets, temperature)
    return torch.zeros_like(batch.mask).masked_scatter(real, values.index_select(0, inverse))


def _distinct(places: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The distinct pairs of (N,) places and (N,) targets, the last one repeated up to a rounded number, and (N,) which of them each is."""
    most = int(targets.max()) + 1
    pairs, inverse = torch.unique(places * most + targets, return_inverse=True)
    pairs = torch.cat([pairs, pairs[-1:].expand(round_length(len(pairs)) - len(pairs))])
    return pairs // most, pairs % most, inverse


def padded_logprobs(completions: Sequence[Completion], batch: MicroBatch) -> Tensor:
    """(B, T) float32 log-probabilities that the sampler recorded, 0 on padding."""
    values = torch.zeros(batch.mask.shape)
    for line, row in enumerate(batch.rows):
        values[line, : len(completions[row].logprobs)] = torch.tensor(completions[row].logprobs)
    return values.to(batch.mask.device)


@torch.no_grad()
def known_logprobs(
    model: PreTrainedModel, completions: Sequence[Completion], *, max_tokens: int, temperature: float
) -> Iterator[tuple[MicroBatch, Tensor]]:
    """Log-probabilities of all responses under `model`, without a gradient, micro-batch by micro-batch."""
    for batch in micro_batches(model, completions, range(len(completions)), max_tokens):
        yield batch, response_logprobs(model, batch, temperature)


def policy_kl(
    reference: PreTrainedModel, completions: Sequence[Completion], *, max_tokens: int, temperature: float
) -> list[float]:
    """For each response, the token mean of the k3 estimate of KL(policy that sampled || reference), in nats a token."""
    values = [0.0] * len(completions)
    for batch, logprobs in known_logprobs(reference, completions, max_tokens=max_tokens, temperature=temperature):
        means = response_means(k3(padded_logprobs(completions, batch), logprobs, batch.mask), batch.mask)
        for row, value in zip(batch.rows, means.tolist(), strict=True):
            values[row] = value
    return values


def recompute_layers(model: PreTrainedModel) -> None:
    """Keep a layer's input alone for its backward pass and compute the rest again there (arXiv 1604.06174, section 4.1).

    transformers' own switch for this acts in training mode only, and what is differentiated here is the model that samples.

    Raises:
        ConfigError: the model does not say which its layers are.
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
