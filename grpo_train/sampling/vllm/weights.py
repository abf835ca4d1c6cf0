"""Gives a policy's weights to vLLM servers, by the server's plugin (`vllm_plugin/`) or vLLM's own requests for adapters.

A transport works in two parts. `prepare` is called on all ranks, since a sharded model is gathered there; it leaves what a server
needs on the main rank or on disk. `give` is called on the main rank, for each server, and again for one that was restarted
in between: it asks nothing of the model, which may be trained on meanwhile.

    files      safetensors in a folder that trainer and server both see
    lora       the adapter alone, in such a folder; the base policy follows by its own folder when it changes
    broadcast  over the network: gloo between CPUs, NCCL between GPUs (never tried)
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from configs.records import Policy
from configs.schema.grpo import VllmConfig
from grpo_train.sampling.vllm.named_weights import adapter_weights, named_weights
from grpo_train.sampling.vllm.plugin import load_folder
from grpo_train.sampling.vllm.trainer_group import Offer, Sender
from reward_training.endpoint import Endpoint

LOAD_S = 600.0
"""for a server that reads weights"""
PIECE_BYTES = 4 * 10**9
"""of a file of weights, at most, unless one tensor is larger"""
TYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
OURS = "regroup-"
"""begins the names of our adapters on a server"""
KEPT = 2
"""newest versions whose folders stay: requests that still run may be of the one before"""


class Transport(Protocol):
    """A way to give new weights to servers."""

    @property
    def model_name(self) -> str | None:
        """What requests have to name as their model; None: the name of the server's own."""

    def prepare(self, model: PreTrainedModel, version: str) -> None:
        """Take the model's weights. All ranks call it; they have to wait for the main rank before a server is asked."""

    def give(self, server: Endpoint) -> None:
        """Give a server the version that was prepared last, unless it holds it. The main rank calls it, threads for several servers.

        Raises:
            ServerAway: it is not there; give it again once it is.
            ServerRefused: the weights do not fit, or the server does not see the folder; it works on with those it had.
        """


def transport(config: VllmConfig, folder: Path, *, base: Policy, is_main: bool) -> Transport:
    """The transport of the configuration.

    Args:
        folder: for what is written, if the configuration names none; trainer and servers have to see it under one path.
        base: the policy on which an adapter is trained.
    """
    into = folder if config.folder is None else Path(config.folder)
    if config.weights == "lora":
        return Lora(into, base, is_main=is_main)
    return Files(into, is_main=is_main) if config.weights == "files" else Broadcast(is_main=is_main)


# ---- files ----------------------------------------------------------------------------------------------------------


class Files:
    """All weights, as safetensors in a folder."""

    model_name = None

    def __init__(self, folder: Path, *, is_main: bool) -> None:
        self._folder, self._is_main, self._version = folder, is_main, ""

    def prepare(self, model: PreTrainedModel, version: str) -> None:
        """Write the weights into a folder of their own; those of older versions go."""
        with torch.no_grad():
            _write(named_weights(model), self._folder, version, is_main=self._is_main)
        self._version = version

    def give(self, server: Endpoint) -> None:
        """Let the server read the folder."""
        load_folder(server, self._folder / named(self._version), self._version)


def named(version: str) -> str:
    """A name for a version's folder or adapter: the same for the same version, and no other's."""
    return OURS + hashlib.sha256(version.encode()).hexdigest()[:16]


def _write(
    weights: Iterable[tuple[str, Tensor]], folder: Path, version: str, *, is_main: bool, stem: str = "model"
) -> None:
    """Write weights to `folder/named(version)` and remove older ones; the ranks beside the main one only iterate."""
    if not is_main:
        for _ in weights:
            pass
        return
    partial = folder / ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _save(weights, partial, stem)
    finished = folder / named(version)
    shutil.rmtree(finished, ignore_errors=True)
    partial.rename(finished)
    for old in sorted(folder.glob(f"{OURS}*"), key=lambda each: each.stat().st_mtime_ns)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def _save(weights: Iterable[tuple[str, Tensor]], folder: Path, stem: str) -> None:
    """One file, or several with an index where they are larger than PIECE_BYTES."""
    pieces: list[Path] = []
    places: dict[str, str] = {}
    held: dict[str, Tensor] = {}
    size = 0

    def put_down() -> None:
        pieces.append(folder / f"{stem}-{len(pieces) + 1:05}.safetensors")
        save_file(held, pieces[-1], metadata={"format": "pt"})
        places.update(dict.fromkeys(held, pieces[-1].name))
        held.clear()

    for name, tensor in weights:
        if held and size + tensor.nbytes > PIECE_BYTES:
            put_down()
            size = 0
        held[name] = tensor.to("cpu").contiguous()
        size += tensor.nbytes
    put_down()
    if len(pieces) == 1:
        pieces[0].rename(folder / f"{stem}.safetensors")
    else:
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


# ---- lora -----------------------------------------------------------------------------------------------------------


class Lora:
    """The adapter alone. Each version is an adapter of its own on the server: `load_inplace` would read it again at every step
    and go on with what it computed of prompts by the one before."""

    def __init__(self, folder: Path, base: Policy, *, is_main: bool) -> None:
        self._folder, self._base, self._is_main = folder, base, is_main
        self._versions: list[str] = []

    @property
    def model_name(self) -> str | None:
        """The newest adapter."""
        return named(self._versions[-1]) if self._versions else None

    def prepare(self, model: PreTrainedModel, version: str) -> None:
        """Write the adapter into a folder of its own."""
        with torch.no_grad():
            _write(adapter_weights(model), self._folder, version, is_main=self._is_main, stem="adapter_model")
        if self._is_main:
            settings: Any = model.peft_config
            settings["default"].save_pretrained(str(self._folder / named(version)))
        others = [each for each in self._versions if each != version]
        self._versions = [*others[1 - KEPT :], version]

    def give(self, server: Endpoint) -> None:
        """Let the server read the base policy, if it holds another, and then the adapter."""
        load_folder(server, Path(self._base.path), self._base.id)
        there = server.models().keys()
        wanted = named(self._versions[-1])
        if wanted not in there:
            path = str((self._folder / wanted).resolve())
            server.post("/v1/load_lora_adapter", {"lora_name": wanted, "lora_path": path}, LOAD_S)
        for old in there - {named(version) for version in self._versions}:
            if old.startswith(OURS):
                server.post("/v1/unload_lora_adapter", {"lora_name": old}, LOAD_S)


# ---- broadcast ------------------------------------------------------------------------------------------------------


class Broadcast:
    """All weights, over a process group of the trainer's main rank and the server's workers; one group for each server.

    The main rank keeps a copy of them in the CPU's memory, so that a server that was restarted can be given them again.
    """

    model_name = None

    def __init__(self, *, is_main: bool) -> None:
        self._is_main = is_main
        self._prepared: tuple[str, list[tuple[str, Tensor]]] = "", []
        self._sender: Sender | None = None

    def prepare(self, model: PreTrainedModel, version: str) -> None:
        """Copy the weights; the ranks beside the main one only gather."""
        self._prepared = "", []  # two copies may not fit
        weights: list[tuple[str, Tensor]] = []
        with torch.no_grad():
            for name, tensor in named_weights(model):
                if self._is_main:
                    weights.append((name, tensor.to("cpu", copy=True).contiguous()))
        self._sender = self._sender or Sender(model.device)
        self._prepared = version, weights

    def give(self, server: Endpoint) -> None:
        """Announce the weights, then broadcast them while the server receives."""
        assert self._sender is not None, "prepare() comes first"
        version, weights = self._prepared  # at once: a thread may still give the version before
        offer: Offer = [(name, TYPES[tensor.dtype], list(tensor.shape)) for name, tensor in weights]
        self._sender.give(server, version, offer, (tensor for _, tensor in weights))
