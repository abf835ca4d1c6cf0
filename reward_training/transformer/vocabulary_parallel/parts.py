"""The part of the vocabulary whose weights this rank holds."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset


@dataclass(frozen=True)
class Part:
    """Tokens `first` to `first + size - 1`."""

    first: int
    size: int

    @classmethod
    def of(cls, weight: DTensor) -> Part:
        """This rank's part of a (V, H) weight that is split by rows."""
        shape, offsets = compute_local_shape_and_global_offset(weight.shape, weight.device_mesh, weight.placements)
        return cls(offsets[0], shape[0])

    def places(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The row of each token in this part (any row for a token of another part), and whether the token is in it."""
        rows = tokens - self.first
        return rows.clamp(0, self.size - 1), (rows >= 0) & (rows < self.size)


def group_of(weight: DTensor) -> ProcessGroup:
    """The ranks that hold the other parts."""
    return weight.device_mesh.get_group()
