"""Rows of all ranks, which every rank computes with together, a round of them at a time.

In a round each rank gives equally many rows, zeros where it has no more, so that all ranks have equally many rounds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, distributed
from torch.distributed import ProcessGroup

ROWS = 1024
"""of all ranks together, in one round"""


@dataclass(frozen=True)
class Rounds:
    """The rounds for rows of which this rank has its own number. Each collective is called by all ranks."""

    group: ProcessGroup
    num_rows: int
    """of the rank that has the most"""

    @classmethod
    def of(cls, rows: Tensor, group: ProcessGroup) -> Rounds:
        """Those for (N, ...) rows of this rank, N of its own. All ranks call it."""
        most = torch.tensor(len(rows), device=rows.device)
        distributed.all_reduce(most, op=distributed.ReduceOp.MAX, group=group)
        return cls(group, int(most))

    def __iter__(self) -> Iterator[slice]:
        """For each round, which of its rows a rank gives; a rank with fewer rows gives those that it has."""
        size = max(1, ROWS // self.group.size())
        return (slice(start, min(start + size, self.num_rows)) for start in range(0, self.num_rows, size))

    def gathered(self, rows: Tensor, part: slice) -> Tensor:
        """(R * S, ...) the S rows that each of the R ranks gives to the round, rank after rank."""
        given, size = rows[part], part.stop - part.start
        padded = given.new_zeros(size, *given.shape[1:])
        padded[: len(given)] = given
        result = given.new_empty(self.group.size() * size, *given.shape[1:])
        distributed.all_gather_single(result, padded, group=self.group)
        return result

    def sums(self, of_all: Tensor) -> Tensor:
        """(S, ...) this rank's rows of the sum over ranks of (R * S, ...) rows."""
        result = of_all.new_empty(len(of_all) // self.group.size(), *of_all.shape[1:])
        distributed.reduce_scatter_single(result, of_all.contiguous(), group=self.group)
        return result

    def from_ranks(self, values: Tensor) -> Tensor:
        """(R, ...) the values of each rank, which are of equal shape."""
        result = values.new_empty(self.group.size() * len(values), *values.shape[1:])
        distributed.all_gather_single(result, values.contiguous(), group=self.group)
        return result.view(self.group.size(), *values.shape)

    def own(self, of_all: Tensor) -> Tensor:
        """(S, ...) this rank's rows of (R * S, ...)."""
        return of_all.chunk(self.group.size())[self.group.rank()]
