"""A key-value cache for sampling on a CPU, that is written in place."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

ROOM = 32
"""tokens by which a layer's arrays grow"""


def sampling_cache(model: PreTrainedModel) -> DynamicCache:
    """An empty cache; on a CPU its layers of full attention have room."""
    cache = DynamicCache(config=model.config)
    if model.device.type == "cpu":
        cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def fork(cache: DynamicCache, copies: dict[int, int], sources: Tensor) -> None:
    """Make rows of a cache copies of others: {row: row it starts as}; `sources` (B,) says the same of every row, new ones at the end."""
    for layer in cache.layers:
        if isinstance(layer, RoomyLayer):
            layer.fork(copies, len(sources))
        else:
            layer.batch_select_indices(sources)  # type: ignore[union-attr]


class RoomyLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """A layer whose arrays grow ROOM tokens at a time, so that a new token is not a copy of all that came before.

    Attention gets the arrays whole, as from transformers' StaticLayer, and a mask that hides the room: a product with the
    written part alone, which is not contiguous, would copy it first, at three times the cost of the product.
    """

    keys: Tensor
    values: Tensor

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.num_written = 0

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append (B, K, T, D) keys and values; returns all with the room behind them, (B, K, R, D)."""
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

    def fork(self, copies: dict[int, int], num_rows: int) -> None:
        """Copy rows into others, {to: from}, of `num_rows` afterwards; the rest stay where they are."""
        self.keys, self.values = _with_rows(self.keys, num_rows), _with_rows(self.values, num_rows)
        for states in (self.keys, self.values):
            states[list(copies)] = states[list(copies.values())]

    def get_seq_length(self) -> int:
        return self.num_written

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys that the next `update` returns."""
        return _roomy_length(self.keys.shape[2] if self.is_initialized else 0, self.num_written + query_length), 0


def _roomy_length(held: int, needed: int) -> int:
    return max(held, -(-needed // ROOM) * ROOM)


def _with_room(states: Tensor, needed: int) -> Tensor:
    """A copy with room of zeros, which stay finite under the mask."""
    batch, heads, held, width = states.shape
    grown = states.new_empty(batch, heads, _roomy_length(held, needed), width)
    grown[:, :, :held] = states
    grown[:, :, held:] = 0
    return grown


def _with_rows(states: Tensor, num_rows: int) -> Tensor:
    """The same rows with further ones behind, of any content: in the storage if it holds so many, else in one with twice as many."""
    shape = (num_rows, *states.shape[1:])
    if num_rows * states[0].numel() <= states.untyped_storage().nbytes() // states.element_size():
        return states.as_strided(shape, states.stride())
    grown = states.new_empty(2 * num_rows, *states.shape[1:])
    grown[: len(states)] = states
    return grown[:num_rows]
