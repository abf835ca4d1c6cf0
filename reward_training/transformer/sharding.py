"""Splits a model among ranks, so that each holds a part of every weight (torch's `fully_shard`; FSDP, arXiv 2304.11277).

A unit is what is gathered at once: a layer, and the rest of the model. A layer's weights are gathered when it is called,
forward and backward, and freed afterwards; the rest is gathered inside `with_weights`. Plain embeddings and heads are
never gathered: each rank computes with its part of the vocabulary (`vocabulary_parallel`).
Gathering is done by all ranks together, so they run the model equally often: `in_step` sees to it. A model that is held
whole passes through both unchanged.

Weights, gradients and optimizer state are float32; with low-precision arithmetic each unit is cast while it is gathered.
Gradients are summed over the ranks, not averaged, in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from transformers import PreTrainedModel
from transformers.distributed.configuration_utils import DistributedConfig

from configs.errors import ConfigError
from reward_training.transformer.vocabulary_parallel.splitting import split_by_vocabulary

T = TypeVar("T")
ROOT = "_regroup_root"


@dataclass(frozen=True)
class Sharding:
    """How a model is split: evenly among all ranks of the process group."""

    device: torch.device
    arithmetic: torch.dtype | None = None
    """dtype that weights are cast to while they are gathered; None: their own"""


class _Root(nn.Module):
    """Runs work on a model in which all but its layers is gathered."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.is_gathered = False

    def forward(self, work: Callable[[PreTrainedModel], T]) -> T:
        self.is_gathered = True
        try:
            return work(self.model)
        finally:
            self.is_gathered = False


def shard(model: PreTrainedModel, sharding: Sharding) -> PreTrainedModel:
    """Split the model in place, also one without weights (on the meta device), which it then gets part by part.

    Raises:
        ConfigError: a rank would have no expert of a mixture; transformers cannot join none when it loads them.
    """
    _refuse_fewer_experts(model)
    mesh = init_device_mesh(sharding.device.type, (distributed.get_world_size(),))
    policy = MixedPrecisionPolicy(
        param_dtype=sharding.arithmetic, reduce_dtype=None if sharding.arithmetic is None else torch.float32
    )
    layers = list(_layers(model))
    of_layers = {weight for layer in layers for weight in layer.parameters()}
    for name, source in _tied(model).items():  # transformers does so later; before, the unit would gather both
        if model.get_parameter(source) not in of_layers and model.get_parameter(name) not in of_layers:
            _tie(model, name, source)
    by_vocabulary = split_by_vocabulary(model, mesh, sharding.arithmetic)
    root = _Root(model)
    for unit in (*layers, root):
        fully_shard(unit, mesh=mesh, mp_policy=policy, reshard_after_forward=True, ignored_params=by_vocabulary)
        unit.set_gradient_divide_factor(1.0)
        unit.set_force_sum_reduction_for_comms(True)  # gloo has no scaled sum
    model.__dict__[ROOT] = root  # no submodule: the model is one of the root's
    return model


def _tied(model: PreTrainedModel) -> dict[str, str]:
    """The second names of weights, and the first name of each."""
    return dict(getattr(model, "all_tied_weights_keys", None) or {})


def _tie(model: PreTrainedModel, name: str, source: str) -> None:
    module, _, weight = name.rpartition(".")
    setattr(model.get_submodule(module), weight, model.get_parameter(source))


def _refuse_fewer_experts(model: PreTrainedModel) -> None:
    num_ranks = distributed.get_world_size()
    joined = [
        (name, len(weight)) for name, weight in model.named_parameters() if ".experts." in name and weight.dim() == 3
    ]
    for name, num_experts in joined:
        if -(-num_experts // num_ranks) * (num_ranks - 1) >= num_experts:
            raise ConfigError(
                f"launcher.num_processes={num_ranks} leaves the last rank none of the {num_experts} experts of {name}; with "
                "launcher.shard use a number that divides them"
            )


def _layers(model: PreTrainedModel) -> Iterable[Any]:
    """The decoder's layers, or else the list of modules that holds the most weights: GPT-2 and encoders name theirs otherwise."""
    layers: Iterable[Any] | None = getattr(model.get_decoder(), "layers", None)  # type: ignore[no-untyped-call]
    if layers is not None:
        return layers
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    called = [each for each in lists if not any(isinstance(module, nn.ModuleList) for module in each)]
    return max(called, key=lambda each: sum(weight.numel() for weight in each.parameters()), default=())


def is_sharded(model: nn.Module) -> bool:
    """Whether the ranks hold parts of the model."""
    return ROOT in model.__dict__


def is_part(weight: Tensor) -> bool:
    """Whether this rank holds a part of the weight only."""
    return isinstance(weight, DTensor)


def with_weights(model: PreTrainedModel, work: Callable[[PreTrainedModel], T]) -> T:
    """`work(model)`, during which the weights of a sharded model are there. All ranks call it."""
    root: _Root | None = model.__dict__.get(ROOT)
    if root is None or root.is_gathered:
        return work(model)
    result: T = root(work)
    return result


def in_step(model: nn.Module, items: Iterator[T], idle: Callable[[], T]) -> Iterator[T]:
    """The items; of a sharded model, then also `idle()` for as long as another rank has items. All ranks call it."""
    if not is_sharded(model):
        yield from items
        return
    device = next(model.parameters()).device
    while True:
        item = next(items, None)
        if not _any_rank(item is not None, device):
            return
        yield idle() if item is None else item


def _any_rank(flag: bool, device: torch.device) -> bool:
    found = torch.tensor(float(flag), device=device)
    distributed.all_reduce(found, op=distributed.ReduceOp.MAX)
    return bool(found)


# ---- loading and gathering ------------------------------------------------------------------------------------------


@contextmanager
def sharded_before_loading(sharding: Sharding) -> Iterator[dict[str, Any]]:
    """Inside this context `from_pretrained`, given the options that this yields, builds a model without weights, splits it,
    and then reads this rank's parts from the files.

    transformers does so for layouts of its own, to which its one hook between the two belongs.

    Raises:
        ConfigError: the configuration ties two weights of which the files hold different numbers.
    """
    tied: list[tuple[PreTrainedModel, dict[str, str]]] = []

    def split(cls: type[PreTrainedModel], model: PreTrainedModel, *_: Any) -> PreTrainedModel:
        del model.config.distributed_config
        tied.append((model, _tied(model)))
        return shard(model, sharding)

    PreTrainedModel.maybe_distribute_model = classmethod(split)  # type: ignore[method-assign,assignment]
    options: dict[str, Any] = {"distributed_config": DistributedConfig()}
    if sharding.device.type != "cpu":
        options["device_map"] = {"": sharding.device}
    try:
        yield options
    finally:
        del PreTrainedModel.maybe_distribute_model  # what it inherits is back
    for model, names in tied:
        _refuse_untied(model, names)


def _refuse_untied(model: PreTrainedModel, tied: dict[str, str]) -> None:
    """transformers leaves two weights apart that were to be one, if both are in the files and differ."""
    for name, source in tied.items():
        if model.get_parameter(name) is not model.get_parameter(source):
            raise ConfigError(
                f"the configuration of {type(model).__name__} ties {name} to {source}, and its files hold different numbers for "
                "both: with launcher.shard, set tie_word_embeddings to false in its config.json"
            )


def whole(tensor: Tensor) -> Tensor:
    """The tensor with the parts of all ranks. All ranks call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """This rank's part; the tensor itself if it is held whole."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def split_as(weight: Tensor, whole: Any) -> Tensor:
    """`whole`, a tensor or a slice of a file, split as `weight` is; this rank copies its part."""
    assert isinstance(weight, DTensor), "the weight is split"
    shape, offsets = compute_local_shape_and_global_offset(weight.shape, weight.device_mesh, weight.placements)
    part = whole[tuple(slice(start, start + size) for start, size in zip(offsets, shape, strict=True))]
    return DTensor.from_local(
        part.clone().to(weight.device),
        weight.device_mesh,
        weight.placements,
        shape=weight.shape,
        stride=weight.stride(),
    )


def of_all_ranks(names: list[str]) -> list[str]:
    """The names that any rank found, without doubles. All ranks call it."""
    gathered: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(gathered, names)
    return sorted({name for found in gathered for name in found})
