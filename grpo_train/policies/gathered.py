"""Writes a model that is split among ranks as the safetensors files that `save_pretrained` would write of the whole one.

All ranks gather one weight after the other, and the main one writes it. So no rank holds the whole model, unless
transformers renames or joins weights when it saves this architecture (mixtures of experts): then the main rank does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from torch import Tensor, distributed
from transformers import PreTrainedModel

from reward_training.transformer.loading.weights import INDEX, WHOLE
from reward_training.transformer.sharding import whole

MAX_FILE = "50GB"
"""what `save_pretrained` writes into one file at most"""
TYPES = {
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.int64: "I64",
}
"""names of dtypes in safetensors files, in the order in which their tensors are written, from the last to the first"""


def save_gathered(model: PreTrainedModel, folder: Path, *, max_file: str = MAX_FILE) -> None:
    """Write configuration and weights of a sharded model to `folder`. All ranks call it."""
    is_main = distributed.get_rank() == 0
    if getattr(model, "_weight_conversions", None):
        state = {name: _on_cpu(weight, keep=is_main) for name, weight in model.state_dict().items()}
        if is_main:
            model.save_pretrained(str(folder), state_dict=state)
    else:
        if is_main:
            model.save_pretrained(str(folder), state_dict={})  # all but the weights
        write_weights(model, folder, max_file=max_file)
    distributed.barrier()


def write_weights(model: PreTrainedModel, folder: Path, *, max_file: str = MAX_FILE) -> None:
    """Write the weights alone, one after the other, tied ones once. All ranks call it; the main one writes."""
    weights = _untied(model)
    shapes = {name: torch.empty(weight.shape, dtype=weight.dtype, device="meta") for name, weight in weights.items()}
    files = split_torch_state_dict_into_shards(
        shapes, filename_pattern=WHOLE.replace(".safetensors", "{suffix}.safetensors"), max_shard_size=max_file
    )
    for file, names in files.filename_to_tensors.items():
        _write({name: weights[name] for name in names}, folder / file)
    if files.is_sharded and distributed.get_rank() == 0:
        facts = {"total_parameters": model.num_parameters(), **files.metadata}
        index = {"metadata": facts, "weight_map": files.tensor_to_filename}
        (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _untied(model: PreTrainedModel) -> dict[str, Tensor]:
    """The state of the model without the second names of weights."""
    state = model.state_dict(keep_vars=True)
    tied: Mapping[str, str] = getattr(model, "all_tied_weights_keys", None) or {}
    return {name: weight for name, weight in state.items() if state.get(tied.get(name, "")) is not weight}


def _write(weights: Mapping[str, Tensor], file: Path) -> None:
    """One safetensors file (https://huggingface.co/docs/safetensors): length of the header, header, numbers."""
    order = list(TYPES)
    names = sorted(weights, key=lambda name: (-order.index(weights[name].dtype), name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in names:
        weight = weights[name]
        start, end = end, end + weight.numel() * weight.element_size()
        header[name] = {"dtype": TYPES[weight.dtype], "shape": list(weight.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    gathered = (_on_cpu(weights[name], keep=distributed.get_rank() == 0) for name in names)
    if distributed.get_rank() == 0:
        _write_all(file, len(text).to_bytes(8, "little") + text, gathered)
    else:
        for _ in gathered:
            pass


def _write_all(file: Path, header: bytes, tensors: Iterator[Tensor]) -> None:
    with file.open("wb") as out:
        out.write(header)
        for tensor in tensors:
            tensor.reshape(-1).view(torch.uint8).numpy().tofile(out)


@torch.no_grad()
def _on_cpu(weight: Tensor, *, keep: bool) -> Tensor:
    """The whole weight; an empty tensor where it is not kept."""
    gathered = whole(weight.detach())
    return gathered.cpu().contiguous() if keep else gathered.new_empty(0)
