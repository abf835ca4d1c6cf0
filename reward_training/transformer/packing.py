"""Packs token sequences into rows that store, and compute, each shared prefix once.

Sequences with a common prefix (a system prompt, a question, the first tokens of several responses to it) form a prefix
tree. A row holds the tree of several sequences, and the attention mask lets each token attend to its ancestors only. So
the model's output and gradient are those of one sequence per row, up to rounding. The idea is tree attention
(SpecInfer, arXiv 2305.09781, section 4.2), used here for scoring and training. It needs a decoder that knows of places
by mask and position ids alone; for other models each sequence gets a row of its own (`trial`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from reward_training.transformer.attention.kernels import BLOCKED
from reward_training.transformer.attention.key_blocks import key_blocks

Sequences = Sequence[Sequence[int]]
Layout = Literal["shared", "own", "plain"]
"""shared: rows share beginnings; own: a row for each sequence, padded; plain: a row for each sequence, and rows of
equal length go through the model together, with neither padding nor mask nor position ids"""
LayoutOf = Callable[[int], Layout]
"""called with the number of tokens of the longest row: how a model's rows may be laid out (`trial.layout_of`)"""

WIDEST = 16
"""longest row, in multiples of the longest sequence"""
PASS_COST = 128
"""fixed cost of a forward and backward pass, in tokens"""


@dataclass(frozen=True)
class Packed:
    """A batch of N sequences of up to L tokens, packed into B rows of T tokens."""

    input_ids: Tensor
    """(B, T) int64, 0 on padding"""
    attention_mask: Tensor | None
    """(B, 1, T, T) bool, True at [b, 0, q, k] if position q attends to position k; in rows of their own a padding
    mask instead: (B, T) int64, 1 on tokens and 0 on padding; None in the plain layout"""
    position_ids: Tensor
    """(B, T) int64, each token's position in its own sequence"""
    nodes: Tensor
    """(N, L) int64, index of each sequence's tokens in the flattened (B * T) batch; 0 after a sequence's last token"""
    lengths: Tensor
    """(N,) int64, number of tokens of each sequence"""

    @property
    def last(self) -> Tensor:
        """(N,) int64, index of each sequence's last token in the flattened (B * T) batch."""
        return self.nodes.gather(1, self.lengths[:, None] - 1).squeeze(1)

    @property
    def num_computed(self) -> int:
        """Number of positions that a forward pass computes, padding included."""
        return self.input_ids.numel()

    @property
    def num_tokens(self) -> int:
        """Number of those positions that hold a token."""
        positions = torch.arange(self.nodes.shape[1], device=self.nodes.device)
        return len(torch.unique(self.nodes[positions < self.lengths[:, None]]))

    def to(self, device: torch.device) -> Packed:
        moved: dict[str, Any] = {
            name: value if value is None else value.to(device) for name, value in vars(self).items()
        }
        return Packed(**moved)


def hidden_size(model: PreTrainedModel) -> int:
    """Width of the token embeddings; not every configuration calls it hidden_size."""
    embeddings = model.get_input_embeddings()
    return int(embeddings.weight.shape[1])  # type: ignore[index]


def packed(sequences: Sequences, *, width: int, layout_of: LayoutOf, max_tokens: int | None = None) -> Packed:
    """All sequences as one batch, in the rows that cost a model of hidden size `width` the least."""
    rows, layout = _rows(sequences, width, layout_of, max_tokens)
    return _filled(sequences, rows, layout, max_tokens)


def packed_batches(
    sequences: Sequences, *, width: int, layout_of: LayoutOf, max_tokens: int, in_one_run: bool = False
) -> Iterator[tuple[list[int], Packed]]:
    """Batches of at most `max_tokens` positions, with the indices of their sequences; a longer sequence is alone.

    With `in_one_run` the model runs once for each batch: in the plain layout, where it runs once for each length, or for each
    sequence, a batch is one sequence.
    """
    if not sequences:
        return
    rows, layout = _rows(sequences, width, layout_of, max_tokens)
    if in_one_run and layout == "plain":
        max_tokens = 1
    longest = max(_row_length(_num_tokens(sequences, row), max_tokens) for row in rows)
    for batch_rows in _evenly(rows, max(1, max_tokens // longest)):
        indices = sorted(i for row in batch_rows for i in row)
        index_in_batch = {i: k for k, i in enumerate(indices)}
        local_rows = [[index_in_batch[i] for i in row] for row in batch_rows]
        yield indices, _filled([sequences[i] for i in indices], local_rows, layout, max_tokens)


# ---- assigning sequences to rows ------------------------------------------------------------------------------------


def _rows(
    sequences: Sequences, width: int, layout_of: LayoutOf, max_tokens: int | None
) -> tuple[list[list[int]], Layout]:
    """Indices of the sequences in each row, and how the rows are laid out; shared where rows as long as these can be."""
    layout = layout_of(max(len(ids) for ids in sequences))
    if layout == "shared":
        rows = _shared_rows(sequences, width, max_tokens)
        layout = layout_of(max(_num_tokens(sequences, row) for row in rows))
        if layout == "shared":
            return rows, layout
    return [[i] for i in sorted(range(len(sequences)), key=lambda i: -len(sequences[i]))], layout


def _shared_rows(sequences: Sequences, width: int, max_tokens: int | None) -> list[list[int]]:
    """Indices of the sequences in each row, for the row length with the lowest cost.

    The sequences of a row are neighbours in lexicographic order.

    A position costs 24 width^2 operations in a layer's matrices and 4 T width in its attention to T others, so the cost
    of a row of T tokens is proportional to T (1 + T / (6 width)).
    """
    order = sorted(range(len(sequences)), key=lambda i: list(sequences[i]))
    common = [0, *(_common_length(sequences[a], sequences[b]) for a, b in pairwise(order))]
    longest = max(len(ids) for ids in sequences)
    max_length = max(longest, min(WIDEST * longest, max_tokens or WIDEST * longest))
    lengths = sorted({min(max_length, round(longest * 1.1**power)) for power in range(30)})
    candidates = [(_cut(sequences, order, common, length), length) for length in lengths]
    return min(candidates, key=lambda cut: _cost(cut[0], cut[1], width, max_tokens))[0]


def _cost(rows: list[list[int]], length: int, width: int, max_tokens: int | None) -> float:
    """Cost of computing the rows at that length, in tokens, with the fixed cost of each pass."""
    num_passes = 1 if max_tokens is None else -(-len(rows) // max(1, max_tokens // max(length, 1)))
    return len(rows) * length * (1 + length / (6 * width)) + PASS_COST * num_passes


def _cut(sequences: Sequences, order: list[int], common: list[int], length: int) -> list[list[int]]:
    """Cut the ordered sequences into rows whose prefix trees have at most `length` tokens.

    `common[k]` is the length of the prefix that the k-th ordered sequence shares with the one before it.
    """
    rows: list[list[int]] = []
    num_tokens = 0
    for i, num_shared in zip(order, common, strict=True):
        num_new = len(sequences[i]) - num_shared
        if not rows or num_tokens + num_new > length:
            rows.append([])
            num_tokens, num_new = 0, len(sequences[i])
        rows[-1].append(i)
        num_tokens += num_new
    return rows


def _common_length(first: Sequence[int], second: Sequence[int]) -> int:
    for i, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return i
    return min(len(first), len(second))


def _num_tokens(sequences: Sequences, row: list[int]) -> int:
    """Number of tokens in the prefix tree of a row, whose sequences are neighbours in lexicographic order."""
    shared = (_common_length(sequences[a], sequences[b]) for a, b in pairwise(row))
    return sum(len(sequences[i]) for i in row) - sum(shared)


def _evenly(rows: list[list[int]], max_rows: int) -> Iterator[list[list[int]]]:
    """The rows in as few chunks of at most `max_rows` as possible, of nearly equal size."""
    num_chunks = -(-len(rows) // max_rows)
    for i in range(num_chunks):
        yield rows[i * len(rows) // num_chunks : (i + 1) * len(rows) // num_chunks]


# ---- filling rows ---------------------------------------------------------------------------------------------------


def round_length(length: int) -> int:
    """Round a length up to one of at most 16 lengths between two powers of two, which adds 3% at the median.

    Kernels and the memory allocator keep state for every length they have seen, so few distinct lengths save memory.

    >>> [round_length(length) for length in (1, 8, 9, 250, 700, 1000)]
    [8, 8, 16, 256, 704, 1024]
    """
    step = max(8, 1 << length.bit_length() >> 5)
    return -(-length // step) * step


def _row_length(num_tokens: int, max_tokens: int | None) -> int:
    """The rounded length of a row, as far as it stays within `max_tokens`."""
    rounded = round_length(num_tokens)
    return rounded if max_tokens is None else max(num_tokens, min(rounded, max_tokens))


def _filled(sequences: Sequences, rows: list[list[int]], layout: Layout, max_tokens: int | None = None) -> Packed:
    """The sequences as one batch, where `rows` has the indices of the sequences in each row."""
    length = _row_length(max(_num_tokens(sequences, row) for row in rows), max_tokens)
    longest = max(len(ids) for ids in sequences)
    input_ids = np.zeros((len(rows), length), dtype=np.int64)
    position_ids = np.zeros_like(input_ids)
    visible = np.zeros((len(rows), length, length), dtype=np.bool_) if layout == "shared" else None
    nodes = np.zeros((len(sequences), longest), dtype=np.int64)
    is_token = np.zeros_like(input_ids)
    for row_index, row in enumerate(rows):
        path = np.zeros(0, dtype=np.int64)  # columns of the previous sequence's tokens
        previous: Sequence[int] = []
        end = 0
        for i in row:
            ids = sequences[i]
            num_shared = _common_length(previous, ids)
            new = np.arange(end, end + len(ids) - num_shared)
            input_ids[row_index, new] = ids[num_shared:]
            position_ids[row_index, new] = np.arange(num_shared, len(ids))
            is_token[row_index, new] = 1
            if visible is not None:
                visible[row_index, new[:, None], path[:num_shared]] = True
                visible[row_index, new[:, None], new] = np.tri(len(new), dtype=np.bool_)
            path = np.concatenate([path[:num_shared], new])
            nodes[i, : len(ids)] = row_index * length + path
            previous, end = ids, end + len(new)
    if visible is not None:  # padding attends to itself, so that its softmax is finite
        np.einsum("bii->bi", visible)[:] |= is_token == 0
    mask = None if layout == "plain" else torch.from_numpy(is_token if visible is None else visible[:, None])
    lengths = torch.tensor([len(ids) for ids in sequences])
    return Packed(torch.from_numpy(input_ids), mask, torch.from_numpy(position_ids), torch.from_numpy(nodes), lengths)


# ---- forward pass ---------------------------------------------------------------------------------------------------


def outputs_of(body: Any, batch: Packed, dtype: torch.dtype, **settings: Any) -> Any:
    """Output of `body` (a decoder or a model with a head) for a padded batch, with attention scores of `dtype`."""
    mask = batch.attention_mask
    if mask is not None and mask.dim() == 4:
        if body.config._attn_implementation == BLOCKED:
            settings["key_blocks"] = key_blocks(mask, torch.promote_types(dtype, torch.float32))
        bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
        mask = bias.masked_fill(~mask, torch.finfo(dtype).min)
    return body(
        input_ids=batch.input_ids,
        attention_mask=mask,
        position_ids=batch.position_ids,
        **({"use_cache": False} | settings),
    )


def states_of(body: Any, batch: Packed, dtype: torch.dtype) -> Tensor:
    """(B * T, H) last hidden states of a decoder, or (B * T, V) logits of a model with a head, for a batch."""
    if batch.attention_mask is None:
        return _states_by_length(body, batch).flatten(0, 1)
    return _states(outputs_of(body, batch, dtype)).flatten(0, 1)


def _states(outputs: Any) -> Tensor:
    states: Tensor = outputs.logits if hasattr(outputs, "logits") else outputs.last_hidden_state
    return states


def _states_by_length(body: Any, batch: Packed) -> Tensor:
    """(B, T, H or V), 0 on padding: rows of equal length go through the model together, as they are."""
    num_rows, width = batch.input_ids.shape
    lengths = torch.zeros(num_rows, dtype=torch.long, device=batch.lengths.device)
    lengths[batch.nodes[:, 0] // width] = batch.lengths
    rows, parts = [], []
    for length in sorted(set(lengths.tolist())):
        rows.append((lengths == length).nonzero().squeeze(1))
        states = _states(body(input_ids=batch.input_ids[rows[-1], :length], use_cache=False))
        parts.append(F.pad(states, (0, 0, 0, width - length)))
    return torch.cat(parts).index_select(0, torch.cat(rows).argsort())
