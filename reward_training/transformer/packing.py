"""Token sequences in rows in which every common beginning stands, and is computed, once.

Sequences that begin alike (by a system prompt, by a question, by the first words of several answers to it) are a tree of tokens. A row
holds the tokens of some sequences' tree, and each token attends to those on the path that leads to it: what a model computes for
it is what it computes in a row of the sequence alone, up to rounding, in value and gradient. The idea is that of tree attention
(SpecInfer, arXiv 2305.09781, section 4.2), used here for scoring and training. Only a decoder that attends fully in every layer can take such a
mask (`shares_beginnings`); for others each sequence is a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

Sequences = Sequence[Sequence[int]]

WIDEST = 16
"""a row holds at most as many tokens as so many of the longest sequences"""
PASS_COST = 128
"""tokens that take as long as what a forward and backward pass costs whatever its size"""
ALIKE = 0.03
"""largest relative difference of states that is rounding: bfloat16 has 8 bits"""
KERNELS_WITH_MASKS = ("grouped", "eager", "sdpa")


@dataclass(frozen=True)
class Packed:
    """A batch of B rows of T tokens that holds N sequences of up to L tokens."""

    input_ids: Tensor
    """(B, T) int64, 0 on padding"""
    attention_mask: Tensor
    """(B, 1, T, T) bool, True where the second position is seen from the first; (B, T) int64, 1 on tokens, where nothing is shared"""
    position_ids: Tensor
    """(B, T) int64, each token's position in its own sequence"""
    nodes: Tensor
    """(N, L) int64, where the tokens of each sequence stand among the B * T; 0 after the last"""
    lengths: Tensor
    """(N,) int64"""

    @property
    def last(self) -> Tensor:
        """(N,) where each sequence's last token stands among the B * T."""
        return self.nodes.gather(1, self.lengths[:, None] - 1).squeeze(1)

    @property
    def num_computed(self) -> int:
        """Positions that a forward pass goes over."""
        return self.input_ids.numel()

    @property
    def num_tokens(self) -> int:
        """Those of them that hold a token."""
        places = torch.arange(self.nodes.shape[1], device=self.nodes.device)
        return len(torch.unique(self.nodes[places < self.lengths[:, None]]))

    def to(self, device: torch.device) -> Packed:
        return Packed(**{name: tensor.to(device) for name, tensor in vars(self).items()})


def shares_beginnings(model: PreTrainedModel, body: nn.Module) -> bool:
    """Whether `body`, the model's decoder, can take a mask of (B, 1, T, T): what it says of itself, and a trial once a model."""
    config = model.config.get_text_config()
    layers = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    has_mask = model.config._attn_implementation in KERNELS_WITH_MASKS
    if layers != {"full_attention"} or window is not None or not has_mask:
        return False
    if model not in _TRIED:
        _TRIED[model] = _computes_alike_when_packed(body)
    return _TRIED[model]


_TRIED: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


@torch.no_grad()
def _computes_alike_when_packed(body: nn.Module) -> bool:
    """On two sequences that share a beginning; a decoder that makes positions from its mask, or sees what comes later, does not."""
    weight = next(body.parameters())
    sequences = [[1, 2, 3, 4], [1, 2, 4]]
    both = _filled(sequences, [[0, 1]], share=True).to(weight.device)
    alone = [_filled([ids], [[0]], share=False).to(weight.device) for ids in sequences]
    try:
        shared = _last_states(body, both, weight.dtype)
        own = torch.cat([_last_states(body, one, weight.dtype) for one in alone])
    except (TypeError, ValueError, RuntimeError, AttributeError):  # it takes no such mask, or no positions
        return False
    return bool((shared - own).norm() <= ALIKE * own.norm())


def _last_states(body: nn.Module, batch: Packed, dtype: torch.dtype) -> Tensor:
    """(N, H) float32, of each sequence's last token."""
    states: Tensor = outputs_of(body, batch, dtype).last_hidden_state
    return states.flatten(0, 1)[batch.last].float()


def hidden_size(model: PreTrainedModel) -> int:
    return int(model.config.get_text_config().hidden_size)


def packed(sequences: Sequences, *, width: int, share: bool, max_tokens: int | None = None) -> Packed:
    """All sequences as one batch, in rows that are cheap for a model of that hidden `width`."""
    return _filled(sequences, _rows(sequences, width, share, max_tokens), share, max_tokens)


def packed_batches(
    sequences: Sequences, *, width: int, share: bool, max_tokens: int
) -> Iterator[tuple[list[int], Packed]]:
    """Batches of at most `max_tokens` positions, and which sequences each holds; a sequence that is longer is alone."""
    if not sequences:
        return
    rows = _rows(sequences, width, share, max_tokens)
    longest = max(_row_length(_num_tokens(sequences, row), max_tokens) for row in rows)
    for some in _evenly(rows, max(1, max_tokens // longest)):
        numbers = sorted(number for row in some for number in row)
        place = {number: i for i, number in enumerate(numbers)}
        here = [[place[number] for number in row] for row in some]
        yield numbers, _filled([sequences[number] for number in numbers], here, share, max_tokens)


# ---- which sequences share a row ------------------------------------------------------------------------------------


def _rows(sequences: Sequences, width: int, share: bool, max_tokens: int | None) -> list[list[int]]:
    """The sequences of each row, neighbours in dictionary order, of that length of rows which costs least.

    A position costs 24 width^2 operations in the matrices of a layer and 4 T width in its attention to T others, so a row of T costs as
    T (1 + T / (6 width)).
    """
    if not share:
        return [[number] for number in sorted(range(len(sequences)), key=lambda number: -len(sequences[number]))]
    order = sorted(range(len(sequences)), key=lambda number: list(sequences[number]))
    common = [0, *(_common_length(sequences[a], sequences[b]) for a, b in pairwise(order))]
    longest = max(len(ids) for ids in sequences)
    most = max(longest, min(WIDEST * longest, max_tokens or WIDEST * longest))
    lengths = sorted({min(most, round(longest * 1.1**power)) for power in range(30)})
    found = [(_cut(sequences, order, common, length), length) for length in lengths]
    return min(found, key=lambda cut: _cost(cut[0], cut[1], width, max_tokens))[0]


def _cost(rows: list[list[int]], length: int, width: int, max_tokens: int | None) -> float:
    passes = 1 if max_tokens is None else -(-len(rows) // max(1, max_tokens // max(length, 1)))
    return len(rows) * length * (1 + length / (6 * width)) + PASS_COST * passes


def _cut(sequences: Sequences, order: list[int], common: list[int], length: int) -> list[list[int]]:
    """Runs of the ordered sequences whose trees have at most `length` tokens."""
    rows: list[list[int]] = []
    held = 0
    for number, shared in zip(order, common, strict=True):
        added = len(sequences[number]) - shared
        if not rows or held + added > length:
            rows.append([])
            held, added = 0, len(sequences[number])
        rows[-1].append(number)
        held += added
    return rows


def _common_length(first: Sequence[int], second: Sequence[int]) -> int:
    for place, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return place
    return min(len(first), len(second))


def _num_tokens(sequences: Sequences, row: list[int]) -> int:
    """Of the tree of neighbours in dictionary order."""
    shared = (_common_length(sequences[a], sequences[b]) for a, b in pairwise(row))
    return sum(len(sequences[number]) for number in row) - sum(shared)


def _evenly(rows: list[list[int]], most: int) -> Iterator[list[list[int]]]:
    """Runs of at most `most` rows, as few as can be, of like size."""
    parts = -(-len(rows) // most)
    for part in range(parts):
        yield rows[part * len(rows) // parts : (part + 1) * len(rows) // parts]


# ---- filling rows ---------------------------------------------------------------------------------------------------


def round_length(length: int) -> int:
    """The next of at most 16 lengths from one power of two to the next, 3% more at the median.

    What a processor's kernels and the memory keep for every length that they have seen is then kept for few.

    >>> [round_length(length) for length in (1, 8, 9, 250, 700, 1000)]
    [8, 8, 16, 256, 704, 1024]
    """
    step = max(8, 1 << length.bit_length() >> 5)
    return -(-length // step) * step


def _row_length(num_tokens: int, max_tokens: int | None) -> int:
    """Rounded as far as that stays in bounds."""
    rounded = round_length(num_tokens)
    return rounded if max_tokens is None else max(num_tokens, min(rounded, max_tokens))


def _filled(sequences: Sequences, rows: list[list[int]], share: bool, max_tokens: int | None = None) -> Packed:
    length = _row_length(max(_num_tokens(sequences, row) for row in rows), max_tokens)
    longest = max(len(ids) for ids in sequences)
    input_ids = np.zeros((len(rows), length), dtype=np.int64)
    position_ids = np.zeros_like(input_ids)
    sees = np.zeros((len(rows), length, length), dtype=np.bool_) if share else None
    nodes = np.zeros((len(sequences), longest), dtype=np.int64)
    is_token = np.zeros_like(input_ids)
    for line, numbers in enumerate(rows):
        path = np.zeros(0, dtype=np.int64)
        before: Sequence[int] = []
        end = 0
        for number in numbers:
            ids = sequences[number]
            shared = _common_length(before, ids)
            new = np.arange(end, end + len(ids) - shared)
            input_ids[line, new] = ids[shared:]
            position_ids[line, new] = np.arange(shared, len(ids))
            is_token[line, new] = 1
            if sees is not None:
                sees[line, new[:, None], path[:shared]] = True
                sees[line, new[:, None], new] = np.tri(len(new), dtype=np.bool_)
            path = np.concatenate([path[:shared], new])
            nodes[number, : len(ids)] = line * length + path
            before, end = ids, end + len(new)
    if sees is not None:  # padding sees itself, so that its softmax is finite
        np.einsum("bii->bi", sees)[:] |= is_token == 0
    mask = torch.from_numpy(is_token if sees is None else sees[:, None])
    lengths = torch.tensor([len(ids) for ids in sequences])
    return Packed(torch.from_numpy(input_ids), mask, torch.from_numpy(position_ids), torch.from_numpy(nodes), lengths)


# ---- computing on them ----------------------------------------------------------------------------------------------


def outputs_of(body: Any, batch: Packed, dtype: torch.dtype, **settings: Any) -> Any:
    """What `body`, a decoder or a model with a head, returns for the rows; `dtype` is that of its attention's scores."""
    mask = batch.attention_mask
    if mask.dim() == 4:
        added = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
        mask = added.masked_fill(~mask, torch.finfo(dtype).min)
    return body(
        input_ids=batch.input_ids,
        attention_mask=mask,
        position_ids=batch.position_ids,
        **({"use_cache": False} | settings),
    )
