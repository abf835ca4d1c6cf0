"""The processes that train one policy together (data parallelism).

Each samples, scores and differentiates its share of a step; then what was found is gathered and gradients are added up, so that all
go on with the same. A loss is a sum over the batch with the whole batch's denominators, hence gradients are summed, not
averaged. One process alone is the case of one rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor

from reward_training.transformer.precision import pick_device

T = TypeVar("T")
R = TypeVar("R")


class Ranks:
    """This process among those that were started together (by torchrun or accelerate)."""

    def __init__(self) -> None:
        # transformers' Trainer does the same: an earlier stage of this process may have set another precision
        AcceleratorState._reset_state(reset_partial_state=True)
        self._state = PartialState(cpu=pick_device().type == "cpu")
        self.device: torch.device = self._state.device
        self.index: int = self._state.process_index
        self.count: int = self._state.num_processes

    @property
    def is_main(self) -> bool:
        """Whether this one writes: journal, rollouts, checkpoints, the model."""
        return self.index == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """Every `count`-th of the items."""
        return list(items[self.index :: self.count])

    def each(self, items: Sequence[T], work: Callable[[list[T]], Sequence[R]]) -> list[R]:
        """`work` on all items, by shares: one result an item, in the order of the items."""
        mine = list(work(self.share(items)))
        if self.count == 1:
            return mine
        shares = gather_object([mine])
        found: list[Any] = [None] * len(items)
        for index, results in enumerate(shares):
            found[index :: self.count] = results
        return found

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over all ranks."""
        if self.count > 1:
            for tensor in tensors:
                torch.distributed.all_reduce(tensor)

    def sums(self, values: Sequence[float]) -> list[float]:
        """Each value's sum over all ranks."""
        held = torch.tensor(values, dtype=torch.float64, device=self.device)
        self.add_up([held])
        return [float(value) for value in held.tolist()]

    def from_main(self, value: T) -> T:
        """The main rank's value, on all."""
        if self.count == 1:
            return value
        held = [value]
        broadcast_object_list(held)
        return held[0]

    def wait(self) -> None:
        """Until all are here."""
        self._state.wait_for_everyone()
