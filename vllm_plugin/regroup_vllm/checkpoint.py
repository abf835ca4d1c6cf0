"""Weights as Hugging Face names them: what a folder's safetensors hold, and whether they fit a server's model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

INDEX = "model.safetensors.index.json"
HEAD = "lm_head.weight"
EMBEDDING = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight", "embeddings.weight")
FLOATS = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
SHOWN = 4
"""names in a message"""


@dataclass(frozen=True)
class Entry:
    """Type (as safetensors writes it, for instance `BF16`) and shape of a tensor."""

    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


def files_of(folder: Path) -> list[Path]:
    """The safetensors that hold the model, sharded or not.

    Raises:
        ValueError: there is no such folder, or a file is missing.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder on the server's machine; name one that trainer and server both see")
    index = folder / INDEX
    if index.is_file():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        files = [folder / name for name in names]
    else:
        files = sorted(folder.glob("*.safetensors"))
    if missing := [file.name for file in files if not file.is_file()]:
        raise ValueError(f"{folder} lacks {', '.join(missing[:SHOWN])}, which its {INDEX} names")
    if not files:
        raise ValueError(f"{folder} holds no *.safetensors")
    return files


def entries_in(folder: Path) -> dict[str, Entry]:
    """What the safetensors of a folder hold, from their headers.

    Raises:
        ValueError: a file is missing, broken or cut off.
    """
    entries: dict[str, Entry] = {}
    for file in files_of(folder):
        try:
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118 - no mapping
                    part = opened.get_slice(name)
                    entries[name] = Entry(part.get_dtype(), tuple(part.get_shape()))
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{file} cannot be read: {error}") from error
    return entries


def tensors_in(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, tensor) of all weights in a folder, one after the other."""
    for file in files_of(folder):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - no mapping
                yield name, opened.get_tensor(name)


def refuse_unfit(offered: Mapping[str, Entry], wanted: Mapping[str, Entry], *, tied: bool) -> None:
    """Raise ValueError unless the offered weights are those of the server's model; float types may differ.

    Args:
        wanted: what the model was started from.
        tied: whether its head is its embedding; then either side may name the head or not.
    """
    free = {name for name in offered.keys() ^ wanted.keys() if tied and name.endswith(HEAD)}
    faults = [f"lacks {name}" for name in sorted(wanted.keys() - offered.keys() - free)]
    faults += [f"has {name}, which the model has not" for name in sorted(offered.keys() - wanted.keys() - free)]
    for name in sorted(wanted.keys() & offered.keys()):
        new, old = offered[name], wanted[name]
        if new.shape != old.shape:
            faults.append(f"{name} is {list(new.shape)}, the model's {list(old.shape)}")
        elif new.dtype != old.dtype and not {new.dtype, old.dtype} <= FLOATS.keys():
            faults.append(f"{name} is {new}, the model's {old}")
    if faults:
        more = f" and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise ValueError(f"not the weights of this server's model: {'; '.join(faults[:SHOWN])}{more}")


def refuse_other_head(weights: Iterable[tuple[str, torch.Tensor]], wanted: Mapping[str, Entry]) -> None:
    """Raise ValueError if a head that the model does not have apart from its embedding differs from it: it would be lost."""
    head, embedding = None, None
    for name, tensor in weights:
        if name.endswith(HEAD) and name not in wanted:
            head = tensor
        elif name.endswith(EMBEDDING):
            embedding = tensor
    if head is not None and (embedding is None or not torch.equal(head, embedding)):
        raise ValueError(
            f"{HEAD} differs from the embedding, and this server's model has one weight for both (tie_word_embeddings); "
            "start the server from the model with untied weights"
        )
