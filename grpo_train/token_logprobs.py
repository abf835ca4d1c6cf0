"""Log-probabilities of given tokens, without ever holding the logits of a whole batch.

The last matrix product, the softmax over the vocabulary and its gradient are computed for CHUNK positions at a time, and the
logits again in the backward pass: memory is chunk x vocabulary instead of batch x length x vocabulary, and on a CPU fresh
pages for such tensors cost more than the second product (the idea of Liger Kernel's fused linear cross-entropy, arXiv
2410.10989, section 3.2).
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel

CHUNK = 256
"""positions whose logits are held at once"""


def token_logprobs(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """(N,) float32 log-softmax of (N, H) @ (V, H)ᵀ / temperature at (N,) `targets`; differentiable in the first two."""
    logprobs: Tensor = _TokenLogprobs.apply(hidden, weight, targets, temperature)  # type: ignore[no-untyped-call]
    return logprobs


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> Tensor:
        normalizers, chosen = (torch.empty(len(hidden), device=hidden.device) for _ in range(2))
        for rows in _chunks(len(hidden)):
            logits = _logits(hidden[rows], weight, temperature)
            chosen[rows] = logits.gather(1, targets[rows, None]).squeeze(1)
            normalizers[rows] = logits.logsumexp(dim=1)
        ctx.save_for_backward(hidden, weight, targets, normalizers)
        ctx.temperature = temperature
        return chosen - normalizers

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        hidden, weight, targets, normalizers = ctx.saved_tensors
        of_hidden = torch.empty_like(hidden)
        of_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        for rows in _chunks(len(hidden)):
            # d log p(target) / d logits = onehot(target) - p
            gradient = _logits(hidden[rows], weight, ctx.temperature).sub_(normalizers[rows, None]).exp_().neg_()
            gradient.scatter_add_(1, targets[rows, None], torch.ones_like(gradient[:, :1]))
            gradient = gradient.mul_(upstream[rows, None] / ctx.temperature).to(hidden.dtype)
            of_hidden[rows] = gradient @ weight
            if of_weight is not None:
                of_weight += gradient.T @ hidden[rows]
        return of_hidden, None if of_weight is None else of_weight.to(weight.dtype), None, None


def _chunks(num_rows: int) -> list[slice]:
    return [slice(start, start + CHUNK) for start in range(0, num_rows, CHUNK)]


def _logits(hidden: Tensor, weight: Tensor, temperature: float) -> Tensor:
    """(n, V) float32, divided by the temperature."""
    return (hidden @ weight.T).float().div_(temperature)


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
