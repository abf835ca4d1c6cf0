"""Log-probabilities of given tokens, without holding the logits of a whole batch in memory.

The last matrix product, the softmax over the vocabulary and its gradient are computed for CHUNK positions at a time.
The backward pass recomputes the logits, except those of the last chunk, which are still in the buffer. So memory is
chunk x vocabulary instead of batch x length x vocabulary (the idea of Liger Kernel's fused linear cross-entropy, arXiv
2410.10989, section 3.2). On a CPU the float32 arithmetic of a chunk runs in slices that fit into the cache: larger
arrays are allocated on fresh pages every time, which costs ten times as much as the arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel

from reward_training.transformer.quiet import FAULTS
from reward_training.transformer.sharding import with_weights

CHUNK = 1024
"""positions whose logits are in memory at once, in the model's precision"""
SLICE = 16
"""positions whose logits are in memory at once in float32, on a CPU"""


def token_logprobs(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """(N,) float32 log-softmax of (N, H) @ (V, H)ᵀ / temperature at (N,) `targets`; differentiable in the first two."""
    logprobs: Tensor = _TokenLogprobs.apply(hidden, weight, targets, temperature)  # type: ignore[no-untyped-call]
    return logprobs


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> Tensor:
        ctx.save_for_backward(hidden, weight, targets)
        ctx.temperature = temperature
        logprobs = torch.empty(len(hidden), device=hidden.device)
        ctx.buffer = _logits_buffer(hidden, weight)
        for rows, logits in _logits(hidden, weight, ctx.buffer):
            for part in _parts(logits, SLICE if logits.device.type == "cpu" else CHUNK):
                all_tokens = _log_softmax(logits[part], temperature)
                logprobs[rows][part] = all_tokens.gather(1, targets[rows][part, None]).squeeze(1)
        return logprobs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        hidden, weight, targets = ctx.saved_tensors
        hidden_grad = torch.empty_like(hidden)
        weight_grad: Tensor | None = None
        buffer, ctx.buffer = ctx.buffer, None  # used once: the gradients overwrite its logits
        known = buffer is not None
        for rows, logits in _logits(
            hidden, weight, buffer if known else _logits_buffer(hidden, weight), last_is_known=known
        ):
            for part in _parts(logits, SLICE if logits.device.type == "cpu" else CHUNK):
                scale = (upstream[rows][part] / ctx.temperature).unsqueeze(1)
                # d log p(target) / d logits = onehot(target) - p
                gradient = _log_softmax(logits[part], ctx.temperature).exp_().mul_(-scale)
                gradient.scatter_add_(1, targets[rows][part, None], scale)
                logits[part] = gradient
            hidden_grad[rows] = logits @ weight
            if ctx.needs_input_grad[1]:
                weight_grad = _added(weight_grad, logits.T @ hidden[rows])
        if weight_grad is None:
            return hidden_grad, torch.zeros_like(weight) if ctx.needs_input_grad[1] else None, None, None
        return hidden_grad, weight_grad.to(weight.dtype), None, None


def _added(total: Tensor | None, product: Tensor) -> Tensor:
    """The sum, in float32 as soon as there are two. The first product is the sum itself: it is as large as the head."""
    return product if total is None else total.float().add_(product)


def _logits_buffer(hidden: Tensor, weight: Tensor) -> Tensor:
    return hidden.new_empty(min(CHUNK, len(hidden)), len(weight))


def _logits(
    hidden: Tensor, weight: Tensor, buffer: Tensor, *, last_is_known: bool = False
) -> Iterator[tuple[slice, Tensor]]:
    """The slice of each chunk of CHUNK rows and its (n, V) logits.

    The logits are in `buffer` until the next chunk overwrites them.

    If `last_is_known`, `buffer` holds the logits of the last chunk already, and that chunk comes first.
    """
    chunks = _parts(hidden, CHUNK)
    if last_is_known:
        chunks = [*chunks[-1:], *chunks[:-1]]
    for i, rows in enumerate(chunks):
        logits = buffer[: len(hidden[rows])]
        if i > 0 or not last_is_known:
            torch.mm(hidden[rows], weight.T, out=logits)
        yield rows, logits


def _parts(rows: Tensor, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, len(rows), size)]


def _log_softmax(logits: Tensor, temperature: float) -> Tensor:
    """(n, V) float32 log-probabilities of all tokens."""
    scaled = logits.float() if temperature == 1 else logits.float() / temperature
    return scaled.log_softmax(dim=1)


_KNOWN: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def plain_head(model: PreTrainedModel) -> Tensor | None:
    """(V, H) weight of the output layer, if the logits are exactly its product with the last hidden states.

    None if the model does more (a bias, a soft cap, a scale): then the logits have to come from the model itself.
    """
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if model not in _KNOWN:
        is_matrix = isinstance(head, nn.Linear) and getattr(head, "bias", None) is None
        _KNOWN[model] = is_matrix and with_weights(model, partial(_is_only_product, head=head))
    return head.weight if _KNOWN[model] else None


def body_of(model: PreTrainedModel) -> Any:
    """The decoder, if its states give the logits by one product (`plain_head`); otherwise the model itself."""
    return model if plain_head(model) is None else model.get_decoder()  # type: ignore[no-untyped-call]


@torch.no_grad()
def _is_only_product(model: PreTrainedModel, head: nn.Linear) -> bool:
    ids = torch.arange(4, device=head.weight.device).unsqueeze(0)
    decoder = model.get_decoder()  # type: ignore[no-untyped-call]
    try:
        hidden = decoder(input_ids=ids, use_cache=False).last_hidden_state
        return torch.equal(head(hidden), model(input_ids=ids, use_cache=False).logits)
    except torch.OutOfMemoryError:
        raise
    except FAULTS:  # not every model has a decoder that can be called alone
        return False
