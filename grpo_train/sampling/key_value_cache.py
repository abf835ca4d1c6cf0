"""A KV cache that is written in place, for sampling on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

ROOM = 32
"""number of tokens by which a layer's arrays grow"""


def sampling_cache(model: PreTrainedModel) -> DynamicCache:
    """An empty KV cache; on a CPU its layers with full attention are `RoomyLayer`s."""
    cache = DynamicCache(config=model.config)
    if model.device.type == "cpu":
        cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def fork(cache: DynamicCache, copies: dict[int, int], sources: Tensor) -> None:
    """Copy rows of a cache onto others: `copies` is {row: row it becomes a copy of}.

    `sources` (B,) gives, for every row of the result, the row that it comes from; new rows are at the end.
    """
    targets, origins = torch.tensor(list(copies)), torch.tensor(list(copies.values()))
    for layer in cache.layers:
        if isinstance(layer, RoomyLayer):
            layer.fork(targets, origins, len(sources))
        else:
            layer.batch_select_indices(sources)  # type: ignore[union-attr]


class RoomyLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """A cache layer whose arrays grow ROOM tokens at a time, so that appending a token does not copy all earlier ones.

    Attention gets the whole arrays, as from transformers' StaticLayer, and a mask that hides the spare room. The
    written part alone is not contiguous, and a product with it would copy it first, at three times the cost of the
    product.
    """

    keys: Tensor
    values: Tensor

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.num_written = 0

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append (B, K, T, D) keys and values; returns all of them with spare room at the end, (B, K, R, D)."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
        start, end = self.num_written, self.num_written + key_states.shape[2]
        if end > self.keys.shape[2]:
            self.keys, self.values = _with_room(self.keys, end), _with_room(self.values, end)
        self.keys[:, :, start:end] = key_states
        self.values[:, :, start:end] = value_states
        self.num_written = end
        return self.keys, self.values

    def fork(self, targets: Tensor, origins: Tensor, num_rows: int) -> None:
        """Grow to `num_rows` rows and copy what is written of the rows `origins` onto `targets`; the others stay as they are."""
        self.keys = _with_rows(self.keys, num_rows, self.num_written)
        self.values = _with_rows(self.values, num_rows, self.num_written)
        for states in (self.keys, self.values):
            written = states[:, :, : self.num_written]
            written.index_copy_(0, targets, written.index_select(0, origins))

    def get_seq_length(self) -> int:
        return self.num_written

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """(length, offset) of the keys that the next `update` returns."""
        return _roomy_length(self.keys.shape[2] if self.is_initialized else 0, self.num_written + query_length), 0


def _roomy_length(held: int, needed: int) -> int:
    return max(held, -(-needed // ROOM) * ROOM)


def _with_room(states: Tensor, needed: int) -> Tensor:
    """A copy with spare room, filled with zeros so that masked products are finite."""
    batch, heads, length, width = states.shape
    grown = states.new_empty(batch, heads, _roomy_length(length, needed), width)
    grown[:, :, :length] = states
    grown[:, :, length:] = 0
    return grown


def _with_rows(states: Tensor, num_rows: int, num_written: int) -> Tensor:
    """The states with `num_rows` rows; the first `num_written` tokens of new rows are arbitrary, the rest zeros.

    Stays in the present storage if that is large enough, else moves to one of twice the rows.
    """
    shape = (num_rows, *states.shape[1:])
    if num_rows * states[0].numel() <= states.untyped_storage().nbytes() // states.element_size():
        return states.as_strided(shape, states.stride())
    grown = states.new_empty(2 * num_rows, *states.shape[1:])
    grown[: len(states)] = states
    grown[len(states) :, :, num_written:] = 0
    return grown[:num_rows]
