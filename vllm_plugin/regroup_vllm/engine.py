"""The weight-transfer backend `regroup`: new weights from a folder that server and trainer both see, or by broadcast.

It works by vLLM's requests (VLLM_SERVER_DEV_MODE=1), whose bodies are

    /init_weight_transfer_engine  {"init_info": {"protocol": 1}}                     asks whether this plugin is there
                                  {"init_info": {"protocol": 1, "offer": [...]}}     asks whether weights would fit
                                  {"init_info": {"protocol": 1, "join": {...}}}      meets a trainer that will broadcast
    /start_weight_update
    /update_weights               {"update_info": {"folder": "/policies/3"}}         a Hugging Face folder, sharded or not
                                  {"update_info": {"offer": [[name, "BF16", [64, 64]], ...]}}     what will be broadcast
                                  {"update_info": {"receive": true}}                 the trainer broadcasts meanwhile
    /finish_weight_update         {"weight_version": "..."}                          what /weight_info says from then on

Differences from vLLM's own backends: everything is checked before anything is changed, so what is refused (HTTP 500 with the
reason) leaves the server as it was; it works without a GPU; and the head of a tied model follows its embedding there, which
vLLM leaves at the old weights, since on a CPU it multiplies by a packed copy of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from regroup_vllm.checkpoint import FLOATS, Entry, entries_in, refuse_other_head, refuse_unfit, tensors_in
from regroup_vllm.group import Group, Join

PROTOCOL = 1
"""counts up when the bodies of the requests change; the trainer's side is grpo_train/sampling/vllm/weights.py"""

Weights = Iterable[tuple[str, torch.Tensor]]


@dataclass
class InitInfo(WeightTransferInitInfo):
    """What a trainer says first."""

    protocol: int
    join: dict[str, Any] | None = None
    offer: list[tuple[str, str, list[int]]] | None = None


@dataclass
class UpdateInfo(WeightTransferUpdateInfo):
    """One of the three."""

    folder: str | None = None
    offer: list[tuple[str, str, list[int]]] | None = None
    receive: bool = False


class RegroupEngine(WeightTransferEngine[InitInfo, UpdateInfo]):
    """The backend in one worker of a server."""

    init_info_cls = InitInfo
    update_info_cls = UpdateInfo
    supports_draft_weight_update = False

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._start, self._wanted, self._fault = _started_from(self.model_config)
        self._tied = bool(getattr(self.model_config.hf_config.get_text_config(), "tie_word_embeddings", False))
        self._group: Group | None = None
        self._offered: dict[str, Entry] = {}

    def init_transfer_engine(self, init_info: InitInfo) -> None:
        """Raise ValueError unless the trainer speaks as this plugin does; meet it if it wants to broadcast."""
        if init_info.protocol != PROTOCOL:
            raise ValueError(
                f"regroup-vllm {version('regroup-vllm')} speaks protocol {PROTOCOL}, the trainer {init_info.protocol!r}; "
                "install the plugin of the trainer's version beside vLLM (make vllm)"
            )
        if init_info.offer is not None:
            self._refuse_unfit(_entries_of(init_info.offer))
        if init_info.join is not None:
            self._group = None
            parallel = self.parallel_config
            rank = 1 + parallel.data_parallel_index * parallel.world_size + parallel.rank
            try:
                self._group = Group(Join(**init_info.join), rank, self.device)
            except TypeError as error:
                raise ValueError(f"join={init_info.join!r}: {error}") from error

    def start_weight_update(self) -> None:
        """Nothing: weights are changed at once, when all of them are here."""

    def finish_weight_update(self) -> None:
        """Nothing: the same."""

    def shutdown(self) -> None:
        """Leave the trainer's group."""
        self._group = None

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """As the base class, which asks for a GPU even without one."""
        self.receive_weights(self.parse_update_info(update_info))
        if self.device.type != "cpu":
            torch.accelerator.synchronize()

    def receive_weights(self, update_info: UpdateInfo) -> None:
        """Raises ValueError, and changes nothing, if the weights are not there or not those of the model."""
        if update_info.folder is not None:
            self._load_folder(Path(update_info.folder))
        elif update_info.offer is not None:
            self._take_offer(update_info.offer)
        elif update_info.receive:
            self._load_broadcast()
        else:
            raise ValueError("update_info names no weights; give one of folder, offer, receive")

    def _load_folder(self, folder: Path) -> None:
        entries = entries_in(folder)
        self._refuse_unfit(entries)
        if self._tied and entries.keys() - self._wanted.keys():
            refuse_other_head(tensors_in(folder), self._wanted)
        self._load(tensors_in(folder))

    def _refuse_unfit(self, entries: dict[str, Entry]) -> None:
        if self._fault:
            raise ValueError(self._fault)
        refuse_unfit(entries, self._wanted, tied=self._tied)

    def _take_offer(self, offer: list[tuple[str, str, list[int]]]) -> None:
        self._offered = {}
        offered = _entries_of(offer)
        if strange := sorted({entry.dtype for entry in offered.values()} - FLOATS.keys()):
            raise ValueError(f"types {', '.join(strange)} are not broadcast; {', '.join(FLOATS)} are")
        self._refuse_unfit(offered)
        self._offered = offered

    def _load_broadcast(self) -> None:
        group, offered = self._group, self._offered
        if group is None or not offered:
            raise ValueError("nothing to receive; join a group, then offer weights")
        self._group, self._offered = None, {}  # a group in which something failed is of no more use
        received = [(name, group.receive(entry)) for name, entry in offered.items()]
        self._group = group
        if self._tied:
            refuse_other_head(received, self._wanted)
        self._load(received)

    def _load(self, weights: Weights) -> None:
        """Replace all weights; if that fails half-way, by those that the server was started from."""
        try:
            self._replace(weights)
        except Exception as error:
            self._replace(tensors_in(self._start))
            raise RuntimeError(
                f"loading failed half-way, and the server has the weights of {self._start} again: {error}"
            ) from error

    def _replace(self, weights: Weights) -> None:
        initialize_layerwise_reload(self.model)
        try:
            self.model.load_weights(weights)
        finally:
            finalize_layerwise_reload(self.model, self.model_config)
        if self.device.type == "cpu":
            for module in self.model.modules():
                if isinstance(module, ParallelLMHead):
                    module.quant_method.process_weights_after_loading(module)


def _entries_of(offer: list[tuple[str, str, list[int]]]) -> dict[str, Entry]:
    try:
        return {str(name): Entry(str(dtype), tuple(shape)) for name, dtype, shape in offer}
    except (TypeError, ValueError) as error:
        raise ValueError(f"offer is no list of [name, type, shape]: {error}") from error


def _started_from(model_config: Any) -> tuple[Path, dict[str, Entry], str]:
    """(folder, weights in it, why they cannot be known) of the model that the server was started from."""
    folder = Path(model_config.model)
    try:
        if not folder.is_dir():
            from huggingface_hub import snapshot_download

            folder = Path(snapshot_download(model_config.model, revision=model_config.revision, local_files_only=True))
        return folder, entries_in(folder), ""
    except (ValueError, OSError) as error:
        return folder, {}, f"the weights that this server was started from are not on its disk as safetensors: {error}"
