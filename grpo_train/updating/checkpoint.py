"""Writes and reads the state of a training at a step boundary, one state per named component.

Numbers and lists of a state go to `state.json`, its tensors to `<name>.safetensors`. `configs.disk.checkpoints` makes
the write atomic. Random generators have no state to save: each draw has its own seed, from the run's seed and the step
(`configs.seeds`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from configs.errors import ConfigError

STATE = "state.json"


class Component(Protocol):
    """A part of the training with state that is carried from step to step."""

    def state(self) -> dict[str, Any]:
        """Plain JSON values, and tensors."""

    def restore(self, state: dict[str, Any]) -> None:
        """Set what `state()` returned, after a round trip through JSON: tuples are lists, keys are strings."""


def write_components(folder: Path, components: Mapping[str, Component]) -> None:
    """Write every component's state into `folder`, tensors without an intermediate copy."""
    values: dict[str, dict[str, Any]] = {}
    for name, component in components.items():
        state = component.state()
        tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
        if tensors:
            save_file(tensors, folder / f"{name}.safetensors")
        values[name] = {key: value for key, value in state.items() if key not in tensors}
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
    file = folder / f"{name}.safetensors"
    component.restore(values[name] | (_tensors(file) if file.exists() else {}))


def _tensors(file: Path) -> dict[str, Tensor]:
    """The file's tensors, cloned: safetensors loads views of the file, and old checkpoints are removed."""
    return {name: tensor.clone() for name, tensor in load_file(file).items()}


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
