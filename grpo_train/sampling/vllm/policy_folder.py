"""Gives servers a policy that lies in a folder, for evaluation and regeneration: nothing loads its model here."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from configs.schema.grpo import VllmConfig
from grpo_train.sampling.vllm.plugin import load_folder
from grpo_train.sampling.vllm.trainer_group import Offer, Sender
from grpo_train.sampling.vllm.weights import named
from reward_training.endpoint import Endpoint


@contextmanager
def giving(
    config: VllmConfig, folder: Path, version: str, device: torch.device
) -> Iterator[Callable[[Endpoint], None]]:
    """What gives a server the policy in `folder`.

    Servers read that folder or, where the configuration names one that they see, a copy in it, which goes at the end. With
    `weights: broadcast` they see no folder: each tensor is read here and sent from `device`.
    """
    if config.weights == "broadcast":
        sender, offer = Sender(device), weights_in(folder)
        yield lambda server: sender.give(server, version, offer, tensors_in(folder))
        return
    if config.folder is None:
        yield partial(load_folder, folder=folder, version=version)
        return
    copy = Path(config.folder) / f"policy-{named(version)}"
    try:
        _copy_weights(folder, copy)
        yield partial(load_folder, folder=copy, version=version)
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def weights_in(folder: Path) -> Offer:
    """(name, type, shape) of each tensor in the folder's safetensors, from their headers."""
    found: Offer = []
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - no mapping
                part = opened.get_slice(name)
                found.append((name, part.get_dtype(), part.get_shape()))
    return found


def tensors_in(folder: Path) -> Iterator[Tensor]:
    """The tensors of `weights_in`, in that order; one at a time is in memory."""
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - no mapping
                yield opened.get_tensor(name)


def _copy_weights(folder: Path, copy: Path) -> None:
    copy.mkdir(parents=True, exist_ok=True)
    for file in sorted([*folder.glob("*.safetensors"), *folder.glob("*.safetensors.index.json")]):
        shutil.copyfile(file, copy / file.name)
