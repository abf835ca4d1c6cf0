"""Data parallelism: the ranks, processes that train one policy together.

Each rank samples, scores and differentiates its share of a step. Results are gathered and gradients all-reduced, so
that all ranks continue with the same weights; of a sharded model (`reward_training.transformer.sharding`) each holds a part. A loss is a sum over the batch with the whole batch's denominators, hence
gradients are summed, not averaged. A single process is the case of one rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, TypeVar

import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor

from reward_training.transformer.precision import autocast_dtype, pick_device
from reward_training.transformer.sharding import Sharding

T = TypeVar("T")
R = TypeVar("R")


class Ranks:
    """This process's rank among those started together (by torchrun or accelerate), and collective operations."""

    def __init__(self) -> None:
        # transformers' Trainer does the same: an earlier stage of this process may have set another precision
        AcceleratorState._reset_state(reset_partial_state=True)
        self._state = PartialState(cpu=pick_device().type == "cpu")
        self.device: torch.device = self._state.device
        self.index: int = self._state.process_index
        self.count: int = self._state.num_processes

    @property
    def is_main(self) -> bool:
        """Whether this rank writes journal, rollouts, checkpoints and model."""
        return self.index == 0

    def sharding(self, precision: Literal["auto", "bfloat16", "float32"]) -> Sharding | None:
        """How a model is split among the ranks; None for a single one, which holds it whole."""
        return Sharding(self.device, autocast_dtype(precision, self.device)) if self.count > 1 else None

    def share(self, items: Sequence[T]) -> list[T]:
        """This rank's share: every `count`-th item, from `index` on."""
        return list(items[self.index :: self.count])

    def each(self, items: Sequence[T], work: Callable[[list[T]], Sequence[R]]) -> list[R]:
        """Run `work` on the items, each rank on its share; all ranks get one result per item, in their order."""
        mine = list(work(self.share(items)))
        if self.count == 1:
            return mine
        shares = gather_object([mine])
        gathered: list[Any] = [None] * len(items)
        for index, results in enumerate(shares):
            gathered[index :: self.count] = results
        return gathered

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """All-reduce: replace each tensor by its sum over all ranks."""
        if self.count > 1:
            for tensor in tensors:
                torch.distributed.all_reduce(tensor)

    def sums(self, values: Sequence[float]) -> list[float]:
        """The sum of each value over all ranks."""
        totals = torch.tensor(values, dtype=torch.float64, device=self.device)
        self.add_up([totals])
        return [float(value) for value in totals.tolist()]

    def from_main(self, value: T) -> T:
        """The main rank's `value`, broadcast to all ranks."""
        if self.count == 1:
            return value
        held = [value]
        broadcast_object_list(held)
        return held[0]

    def wait(self) -> None:
        """Block until all ranks have arrived here."""
        self._state.wait_for_everyone()
