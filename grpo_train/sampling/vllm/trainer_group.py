"""The trainer's end of the process group over which weights are broadcast to a vLLM server; the other is `vllm_plugin/`."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store

from configs.errors import ServerAway
from grpo_train.sampling.vllm.plugin import PROTOCOL, held, update
from reward_training.endpoint import Endpoint
from reward_training.waiting import Daemons

T = TypeVar("T")
Offer = list[tuple[str, str, list[int]]]
"""name, type (as safetensors writes it) and shape of each weight"""
MEET_S = 60.0
"""for trainer and server to meet, and for one tensor to arrive"""


class TrainerGroup:
    """The main rank and the workers of one server. After the first failure it is of no more use."""

    def __init__(self, server: Endpoint, backend: str, device: torch.device) -> None:
        """Meet the server, which has to reach this machine.

        Raises:
            ServerRefused, ServerAway: it does not come.
        """
        self._device, self._timeout = device, timedelta(seconds=MEET_S)
        host = own_address(server.url)
        listening = socket.create_server((host, 0))
        size = 1 + int(server.get("/get_world_size")["world_size"])
        port = int(listening.getsockname()[1])
        self._store = dist.TCPStore(  # type: ignore[attr-defined]
            host, port, size, True, self._timeout, wait_for_workers=False, master_listen_fd=listening.detach()
        )
        join = {"host": host, "port": port, "size": size, "backend": backend, "timeout_s": MEET_S}
        body = {"init_info": {"protocol": PROTOCOL, "join": join}}
        met = _aside(partial(server.post, "/init_weight_transfer_engine", body, 2 * MEET_S))
        try:
            self._group = _group(PrefixStore("regroup", self._store), size, backend, host, self._timeout)
        except RuntimeError as error:
            met.result()
            raise ServerAway(f"{server.url} did not come to {host}:{port}: {error}") from error
        met.result()

    def send(self, tensor: Tensor) -> None:
        """Broadcast a tensor; raises RuntimeError if a worker is away."""
        self._group.broadcast(tensor.to(self._device), 0).wait(self._timeout)


class Sender:
    """Broadcasts weights to servers, over one group for each."""

    def __init__(self, device: torch.device) -> None:
        """`device`: a GPU sends by NCCL to GPUs, a CPU by gloo."""
        is_gpu = device.type == "cuda"
        self._backend, self._device = ("nccl", device) if is_gpu else ("gloo", torch.device("cpu"))
        self._groups: dict[str, TrainerGroup] = {}

    def give(self, server: Endpoint, version: str, offer: Offer, tensors: Iterable[Tensor]) -> None:
        """Give a server weights, unless it holds that version: `tensors` are those of `offer`, in its order.

        Raises:
            ServerAway: it is not there, or went away.
            ServerRefused: the weights do not fit; it works on with those it had.
        """
        holds = held(server)
        if holds == version:
            return
        if holds is None or server.url not in self._groups:  # a server that was restarted is in no group
            self._groups[server.url] = TrainerGroup(server, self._backend, self._device)
        try:
            with update(server, version) as tell:
                tell({"offer": offer})
                received = _aside(partial(tell, {"receive": True}))
                try:
                    for tensor in tensors:
                        self._groups[server.url].send(tensor)
                except RuntimeError as error:
                    received.result()  # says why, if the server can
                    raise ServerAway(f"weights could not be broadcast to {server.url}: {error}") from error
                received.result()
        except BaseException:
            del self._groups[server.url]
            raise


def _aside(call: Callable[[], T]) -> Future[T]:
    """The result of a call in a thread of its own."""
    thread = Daemons(1)
    future = thread.submit(call)
    thread.end()
    return future


def _group(store: Store, size: int, backend: str, host: str, timeout: timedelta) -> Any:
    """The group without torch's global state, which another group may have: rank 0 of `size`."""
    if backend == "nccl":
        options = dist.ProcessGroupNCCL.Options()
        options._timeout = timeout
        return dist.ProcessGroupNCCL(store, 0, size, options)
    gloo: Any = dist.ProcessGroupGloo
    options = gloo._Options()
    options._timeout = timeout
    options._devices = [gloo.create_device(hostname=host)]  # the machine's own name may lead elsewhere
    return gloo(store, 0, size, options)


def own_address(url: str) -> str:
    """This machine's address as the machine of `url` sees it; nothing is sent.

    >>> own_address("http://127.0.0.1:8000")
    '127.0.0.1'
    """
    parts = urlsplit(url)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((parts.hostname or "127.0.0.1", parts.port or 80))
        return str(probe.getsockname()[0])
