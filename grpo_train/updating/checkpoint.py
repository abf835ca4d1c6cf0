"""Writes and reads the state of a training at a step boundary, one state per named component.

Numbers and lists of a state go to `state.json`, its tensors to `<name>.safetensors`, and tensors that are split among
ranks to the folder `<name>`, to which each rank adds its parts (`torch.distributed.checkpoint`). What was split can be
read by another number of ranks, one included. `configs.disk.checkpoints` makes the write atomic. Random generators have no state to save: each draw has its own seed, from the run's seed and the step
(`configs.seeds`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from configs.errors import ConfigError
from reward_training.transformer.sharding import is_part, split_as

STATE = "state.json"


class Component(Protocol):
    """A part of the training with state that is carried from step to step."""

    def state(self) -> dict[str, Any]:
        """Plain JSON values, and tensors."""

    def restore(self, state: dict[str, Any]) -> None:
        """Set what `state()` returned, after a round trip through JSON: tuples are lists, keys are strings."""


@runtime_checkable
class HasWeights(Component, Protocol):
    """A component whose tensors may be split among ranks."""

    def weight_of(self, key: str) -> Tensor:
        """The weight that the tensor `key` of the state belongs to, and is split as."""


def write_components(folder: Path, components: Mapping[str, Component], *, is_main: bool = True) -> None:
    """Write every component's state into `folder`, tensors without an intermediate copy.

    All ranks call it; the main one writes, and the others what they alone hold.
    """
    values: dict[str, dict[str, Any]] = {}
    for name, component in components.items():
        state = component.state()
        tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
        if any(map(is_part, tensors.values())):
            save(tensors, checkpoint_id=folder / name)
        elif tensors and is_main:
            save_file(tensors, folder / f"{name}.safetensors")
        values[name] = {key: value for key, value in state.items() if key not in tensors}
    if is_main:
        (folder / STATE).write_text(json.dumps(values, allow_nan=False), encoding="utf-8")


def read_components(folder: Path, components: Mapping[str, Component]) -> None:
    """Restore every component from `folder`.

    Raises:
        ConfigError: the checkpoint holds other components, since another version wrote it.
    """
    values: dict[str, dict[str, Any]] = json.loads((folder / STATE).read_bytes())
    if values.keys() != components.keys():
        raise ConfigError(
            f"{folder} holds {sorted(values)}, this version needs {sorted(components)}; "
            f"remove {folder.parent} to start the stage over"
        )
    for name, component in components.items():
        read_component(folder, name, component)


def read_component(folder: Path, name: str, component: Component) -> None:
    """Restore only the component `name` from `folder`."""
    values: dict[str, dict[str, Any]] = json.loads((folder / STATE).read_bytes())
    component.restore(values[name] | _tensors(folder, name, component))


def _tensors(folder: Path, name: str, component: Component) -> dict[str, Tensor]:
    """The tensors of the component `name`; of weights that are split among ranks, this rank's parts."""
    file = folder / f"{name}.safetensors"
    if isinstance(component, HasWeights) and (folder / name).is_dir():
        return _of_several_ranks(folder / name, component)
    if not file.exists():
        return {}
    with safe_open(file, framework="pt") as stored:
        if isinstance(component, HasWeights):
            return {key: _part(stored.get_slice(key), component.weight_of(key)) for key in stored.keys()}  # noqa: SIM118
        return {key: stored.get_tensor(key).clone() for key in stored.keys()}  # noqa: SIM118


def _of_several_ranks(folder: Path, component: HasWeights) -> dict[str, Tensor]:
    """What several ranks wrote into the folder, split as this component's weights are, or whole."""
    sizes = FileSystemReader(folder).read_metadata().state_dict_metadata
    tensors = {key: _empty(stored.size, component.weight_of(key)) for key, stored in sizes.items()}  # type: ignore[union-attr]
    load(tensors, checkpoint_id=folder, no_dist=not torch.distributed.is_initialized())
    return tensors


def _empty(size: torch.Size, weight: Tensor) -> Tensor:
    """Room for a tensor of the weight: split as it is, if it has its shape."""
    return torch.empty_like(weight) if size == weight.shape else torch.empty(size, device=weight.device)


def _part(stored: Any, weight: Tensor) -> Tensor:
    """The tensor in a file, cloned, since the file is removed while it is in use; this rank's part if the weight is split."""
    if is_part(weight) and stored.get_shape() == list(weight.shape):
        return split_as(weight, stored)
    tensor: Tensor = stored[...]
    return tensor.clone()


class Weights:
    """The trained parameters of a model; `restored` is called after they are replaced."""

    def __init__(self, model: torch.nn.Module, restored: Callable[[], None]) -> None:
        self.model = model
        self.restored = restored

    def state(self) -> dict[str, Any]:
        return self._trained()

    def restore(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            for name, parameter in self._trained().items():
                parameter.copy_(state[name])
        self.restored()

    def weight_of(self, key: str) -> Tensor:
        return self._trained()[key]

    def _trained(self) -> dict[str, Tensor]:
        """The trained parameters by name, tied ones once."""
        named = self.model.named_parameters()
        return {name: parameter.detach() for name, parameter in named if parameter.requires_grad}


class OptimizerState:
    """An optimizer's moments and parameter groups."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def state(self) -> dict[str, Any]:
        whole = self.optimizer.state_dict()
        moments = {f"{index}/{key}": value for index, entry in whole["state"].items() for key, value in entry.items()}
        return {"groups": whole["param_groups"]} | moments

    def weight_of(self, key: str) -> Tensor:
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        weight: Tensor = weights[int(key.partition("/")[0])].detach()
        return weight

    def restore(self, state: dict[str, Any]) -> None:
        moments: dict[int, dict[str, Any]] = {}
        for name, value in state.items():
            if name != "groups":
                index, key = name.split("/")
                moments.setdefault(int(index), {})[key] = value
        self.optimizer.load_state_dict({"state": moments, "param_groups": state["groups"]})


class ScheduleState:
    """The state of a learning-rate schedule."""

    def __init__(self, scheduler: torch.optim.lr_scheduler.LRScheduler) -> None:
        self.scheduler = scheduler

    def state(self) -> dict[str, Any]:
        return dict(self.scheduler.state_dict())

    def restore(self, state: dict[str, Any]) -> None:
        self.scheduler.load_state_dict(state)
