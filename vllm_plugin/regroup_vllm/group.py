"""The process group over which a trainer broadcasts weights: the trainer is rank 0, the server's workers are the others."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from regroup_vllm.checkpoint import FLOATS, Entry


@dataclass(frozen=True)
class Join:
    """Where the trainer waits, and for how many."""

    host: str
    port: int
    size: int
    backend: str
    """gloo: tensors of the CPU; nccl: tensors of GPUs (never tried)"""
    timeout_s: float


class Group:
    """A worker's end. It is apart from the server's own process groups, and broken after the first failure."""

    def __init__(self, join: Join, rank: int, device: torch.device) -> None:
        """Meet the trainer.

        Raises:
            ValueError: there is no such backend here.
            RuntimeError: the trainer is not there in time.
        """
        if join.backend not in ("gloo", "nccl") or (join.backend == "nccl" and device.type != "cuda"):
            raise ValueError(f"backend {join.backend!r} cannot be used on this server's device {device.type}")
        if not 1 <= rank < join.size:
            raise ValueError(f"a group of {join.size} has no place for worker {rank}")
        timeout = timedelta(seconds=join.timeout_s)
        self._store = dist.TCPStore(join.host, join.port, join.size, is_master=False, timeout=timeout)
        self._device = device if join.backend == "nccl" else torch.device("cpu")
        self._group = _group(dist.PrefixStore("regroup", self._store), rank, join, timeout)
        self._timeout = timeout

    def receive(self, entry: Entry) -> torch.Tensor:
        """The next tensor, in memory of the CPU."""
        tensor = torch.empty(entry.shape, dtype=FLOATS[entry.dtype], device=self._device)
        self._group.broadcast(tensor, 0).wait(self._timeout)
        return tensor.cpu()


def _group(store: dist.Store, rank: int, join: Join, timeout: timedelta) -> Any:
    """The group without torch's global state, which holds the server's own."""
    if join.backend == "nccl":
        options = dist.ProcessGroupNCCL.Options()
        options._timeout = timeout
        return dist.ProcessGroupNCCL(store, rank, join.size, options)
    options = dist.ProcessGroupGloo._Options()
    options._timeout = timeout
    with socket.socket(
        socket.AF_INET, socket.SOCK_DGRAM
    ) as probe:  # which of this machine's addresses the trainer sees
        probe.connect((join.host, join.port))
        options._devices = [dist.ProcessGroupGloo.create_device(hostname=probe.getsockname()[0])]
    return dist.ProcessGroupGloo(store, rank, join.size, options)
