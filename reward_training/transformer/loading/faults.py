"""What is wrong with weights that were loaded: those that the model lacks, has in another shape, or would drop.

transformers fills up what a file lacks with random numbers, and says so in a warning alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

SHOWN = 3
"""names of weights that an error shows"""
WRAPPERS = {
    "_fsdp_wrapped_module.": "FSDP",
    "_checkpoint_wrapped_module.": "activation checkpointing",
    "_orig_mod.": "torch.compile",
    "base_model.model.": "PEFT",
    "pretrained_model.": "TRL's model with a value head",
    "_forward_module.": "Lightning",
    "module.": "DistributedDataParallel or DeepSpeed",
}
"""what wrappers put into the names of weights, longer ones before those that they hold"""
ADAPTED = re.compile(r"\.lora_\w+|\.base_layer\.|\.modules_to_save\.")
"""parts of names that a PEFT adapter makes, which is not merged"""
OF_LAYER = re.compile(r"\.\d+\.")
UNSCALED = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""types of numbers that are weights as they stand; others are quantised"""


@dataclass(frozen=True)
class Loaded:
    """A model, and what transformers says about the names of its weights."""

    model: PreTrainedModel
    missing: frozenset[str]
    """of the model, and not in the file"""
    spare: frozenset[str]
    """in the file, and not of the model"""
    mismatched: Mapping[str, tuple[Sequence[int], Sequence[int]]]
    """{name: (shape in the file, shape in the model)}"""

    @classmethod
    def of(cls, model: PreTrainedModel, info: Mapping[str, Any]) -> Loaded:
        """From the `output_loading_info` of `from_pretrained`."""
        mismatched = {name: (tuple(stored), tuple(wanted)) for name, stored, wanted in info["mismatched_keys"]}
        return cls(model, frozenset(info["missing_keys"]), frozenset(info["unexpected_keys"]), mismatched)

    def fault(self, new: str | None = None) -> str | None:
        """Why the model is not the one that was saved, with the remedy; None if it is. Weights whose names begin with
        `new` may be missing: they are drawn anew and trained."""
        missing = sorted(name for name in self.missing if new is None or not name.startswith(new))
        if missing:
            total, kind = len(self.model.state_dict()), type(self.model).__name__
            return (
                f"lacks {len(missing)} of the {total} weights of {kind}, which would be random: {some(missing)}; "
                + self._remedy(missing)
            )
        if self.mismatched:
            name = min(self.mismatched)
            stored, wanted = (" x ".join(map(str, shape)) for shape in self.mismatched[name])
            return (
                f"has {number(self.mismatched)} of another shape than config.json says: {name} is {stored}, not {wanted}; "
                "take the config.json that was saved with the weights"
            )
        if dropped := self._dropped():
            return (
                f"has {number(dropped)} that {type(self.model).__name__} would drop: {some(dropped)}; "
                + _remedy_of_dropped(dropped)
            )
        return None

    def _remedy(self, missing: Sequence[str]) -> str:
        if any(ADAPTED.search(name) for name in self.spare):
            return "a PEFT adapter is not merged into them: save `merge_and_unload()` of the model"
        if prefix := wrapper(missing, self.spare):
            made_by = " and ".join(name for part, name in WRAPPERS.items() if _holds(prefix, part))
            return (
                f"the names in the file have {prefix!r} in them"
                + (f", which {made_by} writes" if made_by else "")
                + ": save the model that is wrapped, or take that out of the names"
            )
        if self.spare:
            return (
                f"the file has others ({some(sorted(self.spare))}): take the config.json that was saved "
                "with the weights, or name them as the model does"
            )
        return "copy or save the model again, whole"

    def _dropped(self) -> list[str]:
        """Spare weights without which the model computes something else: those of a module that is loaded (a bias, a scale
        of quantised weights), and modules that each layer of the file has and none of the model's.

        Others are heads and layers that this model does without.
        """
        modules = dict(self.model.named_modules())
        of_modules = [name for name in self.spare if _has_weights(modules, name)]
        layers = {name: OF_LAYER.sub(".*.", name, count=1) for name in self.spare if name.endswith(".weight")}
        found = {pattern: sum(other == pattern for other in layers.values()) for pattern in set(layers.values())}
        num_layers = _layers(self.model)
        in_each = [
            name for name, pattern in layers.items() if 1 < num_layers == found[pattern] and _is_inside(modules, name)
        ]
        return sorted({*of_modules, *in_each})


def _has_weights(modules: Mapping[str, nn.Module], name: str) -> bool:
    """Whether the innermost module of the model that the name goes through has weights of its own."""
    return any(True for _ in modules[_innermost(modules, name)].parameters(recurse=False))


def _is_inside(modules: Mapping[str, nn.Module], name: str) -> bool:
    """Whether the name goes into a layer of the model."""
    return OF_LAYER.search(_innermost(modules, name) + ".") is not None


def _innermost(modules: Mapping[str, nn.Module], name: str) -> str:
    parts = name.split(".")
    return next(found for end in range(len(parts) - 1, -1, -1) if (found := ".".join(parts[:end])) in modules)


def _layers(model: PreTrainedModel) -> int:
    return int(getattr(model.config.get_text_config(), "num_hidden_layers", 0) or 0)


def _remedy_of_dropped(names: Iterable[str]) -> str:
    if any(ADAPTED.search(name) for name in names):
        return "a PEFT adapter is not merged into them: save `merge_and_unload()` of the model"
    return (
        "config.json is another architecture's, or lacks the quantization_config of quantised weights: take the one that was "
        "saved with them"
    )


def wrapper(missing: Sequence[str], spare: Iterable[str]) -> str | None:
    """What a wrapper put into the names of the file: the prefix that most of them have, or parts further inside."""
    wanted = set(missing)
    for name in sorted(spare):
        bare = name
        for part in WRAPPERS:
            bare = re.sub(rf"(?<![^.]){re.escape(part)}", "", bare)
        if bare != name and bare in wanted:
            return _taken_out(name, bare)
    for name in sorted(spare):
        parts = name.split(".")
        for start in range(1, len(parts)):
            if ".".join(parts[start:]) in wanted:
                return ".".join(parts[:start]) + "."
    return None


def _taken_out(name: str, bare: str) -> str:
    """The parts of `name` that `bare` does not have, joined."""
    kept, taken = bare.split("."), []
    for part in name.split("."):
        if kept and part == kept[0]:
            kept.pop(0)
        else:
            taken.append(part)
    return ".".join(taken) + "."


def _holds(prefix: str, part: str) -> bool:
    return f".{part}" in f".{prefix}"


def number(names: Sized) -> str:
    """The number of weights in words."""
    return "one weight" if len(names) == 1 else f"{len(names)} weights"


def some(names: Sequence[str]) -> str:
    """The first names, and how many more there are.

    >>> some(["a", "b"]), some(["a", "b", "c", "d", "e"])
    ('a, b', 'a, b, c and 2 more')
    """
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def not_finite(tensors: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Names of the tensors that hold NaN or infinity."""
    return [name for name, tensor in tensors if tensor.dtype in UNSCALED and tensor.numel() and not _is_finite(tensor)]


def _is_finite(tensor: Tensor) -> bool:
    low, high = torch.aminmax(tensor.detach())
    return bool(torch.isfinite(low) & torch.isfinite(high))
