"""Log-probabilities of given tokens, without ever holding the logits of a whole batch.

The last matrix product, the softmax over the vocabulary and its gradient are computed for CHUNK positions at a time, and the
logits again in the backward pass, but for the last chunk, which still stands there: memory is chunk x vocabulary instead of
batch x length x vocabulary (the idea of Liger Kernel's fused linear cross-entropy, arXiv 2410.10989, section 3.2). On a CPU the
float32 part of a chunk goes through the cache in slices: an array that does not fit is fresh pages every time, at ten times the
cost of the arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel

CHUNK = 1024
"""positions whose logits are held at once, in the model's precision"""
SLICE = 16
"""positions whose logits are held in float32, on a CPU"""


def token_logprobs(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """(N,) float32 log-softmax of (N, H) @ (V, H)ᵀ / temperature at (N,) `targets`; differentiable in the first two."""
    logprobs: Tensor = _TokenLogprobs.apply(hidden, weight, targets, temperature)  # type: ignore[no-untyped-call]
    return logprobs


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> Tensor:
        ctx.save_for_backward(hidden, weight, targets)
        ctx.temperature = temperature
        found = torch.empty(len(hidden), device=hidden.device)
        ctx.held = _array(hidden, weight)
        for rows, logits in _logits(hidden, weight, ctx.held):
            for part in _parts(logits, SLICE if logits.device.type == "cpu" else CHUNK):
                all_tokens = _log_softmax(logits[part], temperature)
                found[rows][part] = all_tokens.gather(1, targets[rows][part, None]).squeeze(1)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        hidden, weight, targets = ctx.saved_tensors
        of_hidden = torch.empty_like(hidden)
        of_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        held, ctx.held = ctx.held, None  # gradients are written over it
        known = held is not None
        for rows, logits in _logits(hidden, weight, held if known else _array(hidden, weight), last_is_known=known):
            for part in _parts(logits, SLICE if logits.device.type == "cpu" else CHUNK):
                scale = (upstream[rows][part] / ctx.temperature).unsqueeze(1)
                # d log p(target) / d logits = onehot(target) - p
                gradient = _log_softmax(logits[part], ctx.temperature).exp_().mul_(-scale)
                gradient.scatter_add_(1, targets[rows][part, None], scale)
                logits[part] = gradient
            of_hidden[rows] = logits @ weight
            if of_weight is not None:
                of_weight += logits.T @ hidden[rows]
        return of_hidden, None if of_weight is None else of_weight.to(weight.dtype), None, None


def _array(hidden: Tensor, weight: Tensor) -> Tensor:
    return hidden.new_empty(min(CHUNK, len(hidden)), len(weight))


def _logits(
    hidden: Tensor, weight: Tensor, held: Tensor, *, last_is_known: bool = False
) -> Iterator[tuple[slice, Tensor]]:
    """For CHUNK rows at a time, which they are and their (n, V) logits in `held`, which the next chunk overwrites.

    Where `held` has those of the last chunk already, that one comes first.
    """
    chunks = _parts(hidden, CHUNK)
    if last_is_known:
        chunks = [*chunks[-1:], *chunks[:-1]]
    for number, rows in enumerate(chunks):
        logits = held[: len(hidden[rows])]
        if number or not last_is_known:
            torch.mm(hidden[rows], weight.T, out=logits)
        yield rows, logits


def _parts(rows: Tensor, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, len(rows), size)]


def _log_softmax(logits: Tensor, temperature: float) -> Tensor:
    """(n, V) float32."""
    return (logits.float() / temperature).log_softmax(dim=1)


_KNOWN: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def plain_head(model: PreTrainedModel) -> Tensor | None:
    """(V, H) weight of the last layer, where logits are nothing but its product with the last hidden states.

    None where the model does more (a bias, a cap, a scale): then its own logits have to be taken.
    """
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if model not in _KNOWN:
        _KNOWN[model] = (
            isinstance(head, nn.Linear) and getattr(head, "bias", None) is None and _is_only_product(model, head)
        )
    return head.weight if _KNOWN[model] else None


@torch.no_grad()
def _is_only_product(model: PreTrainedModel, head: nn.Linear) -> bool:
    ids = torch.arange(4, device=head.weight.device).unsqueeze(0)
    decoder = model.get_decoder()  # type: ignore[no-untyped-call]
    hidden = decoder(input_ids=ids, use_cache=False).last_hidden_state
    return torch.equal(head(hidden), model(input_ids=ids, use_cache=False).logits)
