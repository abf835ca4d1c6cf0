"""Log-probabilities of given tokens by a head of which each rank holds a part of the vocabulary (Megatron-LM, arXiv
1909.08053, section 3).

Hidden states of all ranks are gathered, a round at a time, and each rank computes their logits of its own tokens. The
softmax is put together from each rank's maximum and sum of exponentials. Backward, each rank has the gradient of its
part of the weight from the rows of all ranks, and those of hidden states are summed over the ranks in float32.
The logits of the last round are kept until then, those of the others are computed again, as `token_logprobs` does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed.tensor import DTensor

from reward_training.transformer.token_logprobs import SLICE, _added
from reward_training.transformer.vocabulary_parallel.parts import Part, group_of
from reward_training.transformer.vocabulary_parallel.rounds import Rounds


def split_token_logprobs(hidden: Tensor, weight: DTensor, targets: Tensor, temperature: float) -> Tensor:
    """(N,) float32 log-softmax of (N, H) @ (V, H)ᵀ / temperature at (N,) `targets`; differentiable in the first two.

    All ranks call it, each with its own N.
    """
    rounds = Rounds.of(hidden, group_of(weight))
    logprobs: Tensor = _SplitTokenLogprobs.apply(  # type: ignore[no-untyped-call]
        hidden, weight.to_local(), targets, temperature, Part.of(weight), rounds
    )
    return logprobs


class _Softmax(NamedTuple):
    """Of each row's logits of all tokens, divided by the temperature."""

    largest: Tensor
    """(n,) float32"""
    log_total: Tensor
    """(n,) float32, log of the sum of exp(logit - largest)"""


class _SplitTokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, part: Part, rounds: Rounds
    ) -> Tensor:
        ctx.save_for_backward(hidden, weight, targets)
        ctx.temperature, ctx.part, ctx.rounds = temperature, part, rounds
        ctx.softmaxes, ctx.last = [], None
        logprobs = torch.empty(len(hidden), device=hidden.device)
        for given in rounds:
            ctx.last = rounds.gathered(hidden, given) @ weight.to(hidden.dtype).T
            found = _summary(ctx.last, rounds.gathered(targets, given), part, temperature)
            softmax, target = _combined(rounds.from_ranks(found))
            ctx.softmaxes.append(softmax)
            of_all = target - softmax.largest - softmax.log_total
            logprobs[given] = rounds.own(of_all)[: len(logprobs[given])]
        return logprobs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, targets = ctx.saved_tensors
        rounds, low = ctx.rounds, weight.to(hidden.dtype)
        hidden_grad = torch.empty_like(hidden)
        weight_grad: Tensor | None = None
        known, ctx.last = ctx.last, None  # used once: the gradients overwrite its logits
        for given, softmax in reversed(list(zip(rounds, ctx.softmaxes, strict=True))):
            states = rounds.gathered(hidden, given)
            logits = states @ low.T if known is None else known
            known = None
            scale = rounds.gathered(upstream, given) / ctx.temperature
            _to_gradient(logits, softmax, rounds.gathered(targets, given), scale, ctx.part, ctx.temperature)
            hidden_grad[given] = rounds.sums((logits @ low).float())[: len(hidden_grad[given])].to(hidden.dtype)
            if ctx.needs_input_grad[1]:
                weight_grad = _added(weight_grad, logits.T @ states)
        return hidden_grad, weight_grad, None, None, None, None


def _summary(logits: Tensor, targets: Tensor, part: Part, temperature: float) -> Tensor:
    """(3, n) float32 of this rank's (n, v) logits: the largest, the sum of exp(logit - largest), and the target's, 0 if it
    is in another part."""
    found = torch.empty(3, len(logits), device=logits.device)
    for rows in _slices(logits):
        scaled = logits[rows].float() / temperature
        places, is_here = part.places(targets[rows])
        found[0, rows] = scaled.amax(dim=1)
        found[2, rows] = scaled.gather(1, places[:, None]).squeeze(1) * is_here
        found[1, rows] = scaled.sub_(found[0, rows, None]).exp_().sum(dim=1)
    return found


def _combined(found: Tensor) -> tuple[_Softmax, Tensor]:
    """The softmax over all parts, and the (n,) target's logit, from each rank's summary (R, 3, n)."""
    largest = found[:, 0].amax(dim=0)
    total = (found[:, 1] * (found[:, 0] - largest).exp()).sum(dim=0)
    return _Softmax(largest, total.log()), found[:, 2].sum(dim=0)


def _to_gradient(
    logits: Tensor, softmax: _Softmax, targets: Tensor, scale: Tensor, part: Part, temperature: float
) -> None:
    """Replace (n, v) logits by scale (onehot(target) - p), the gradient of the log-probability times its upstream."""
    for rows in _slices(logits):
        places, is_here = part.places(targets[rows])
        shifted = (logits[rows].float() / temperature).sub_(softmax.largest[rows, None])
        # rounded as `token_logprobs` rounds it: Adam turns another rounding of tiny gradients into steps
        gradient = shifted.sub_(softmax.log_total[rows, None]).exp_().mul_(-scale[rows, None])
        gradient.scatter_add_(1, places[:, None], (scale[rows] * is_here)[:, None])
        logits[rows] = gradient


def _slices(logits: Tensor) -> Iterator[slice]:
    size = SLICE if logits.device.type == "cpu" else max(1, len(logits))
    return (slice(start, start + size) for start in range(0, len(logits), size))
