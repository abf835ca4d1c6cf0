"""Looks up embeddings of which each rank holds those of a part of the vocabulary (Megatron-LM, arXiv 1909.08053, section 3).

Each rank looks up the tokens of all ranks among its own rows, and the sum over the ranks is every rank's states: one of
the ranks has the row, and the others add zeros. Backward, each rank adds the gradients of all ranks to its own rows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.distributed.tensor import DTensor

from reward_training.transformer.vocabulary_parallel.parts import Part, group_of
from reward_training.transformer.vocabulary_parallel.rounds import Rounds


def looked_up(embedding: nn.Embedding, dtype: torch.dtype | None, ids: Tensor) -> Tensor:
    """(..., H) states of (...) token ids, in `dtype` (None: that of the weight). All ranks call it, each with its own ids."""
    weight = embedding.weight
    assert isinstance(weight, DTensor), "the embedding is split"
    tokens = ids.reshape(-1)
    rounds = Rounds.of(tokens, group_of(weight))
    states: Tensor = _Lookup.apply(  # type: ignore[no-untyped-call]
        weight.to_local(), tokens, Part.of(weight), rounds, dtype or weight.dtype, embedding.padding_idx
    )
    return states.view(*ids.shape, weight.shape[1])


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, ids: Tensor, part: Part, rounds: Rounds, dtype: torch.dtype, padding: int | None
    ) -> Tensor:
        ctx.save_for_backward(weight, ids)
        ctx.part, ctx.rounds, ctx.padding = part, rounds, padding
        states = weight.new_empty(len(ids), weight.shape[1], dtype=dtype)
        for given in rounds:
            rows, is_here = part.places(rounds.gathered(ids, given))
            found = weight[rows].to(dtype).masked_fill_(~is_here[:, None], 0)
            states[given] = rounds.sums(found)[: len(states[given])]
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        weight, ids = ctx.saved_tensors
        gradient = torch.zeros_like(weight)
        for given in ctx.rounds:
            tokens = ctx.rounds.gathered(ids, given)
            rows, is_here = ctx.part.places(tokens)
            if ctx.padding is not None:  # torch's embedding gives its row no gradient
                is_here &= tokens != ctx.padding
            moved = ctx.rounds.gathered(upstream, given).to(weight.dtype)
            gradient.index_add_(0, rows, moved.masked_fill_(~is_here[:, None], 0))
        return gradient, None, None, None, None, None
