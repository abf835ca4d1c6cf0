"""The one place where weights are loaded: what would be random, dropped or no number is refused by name.

`load_model` loads, and `models_held` counts what it loaded; `check_weights` looks at a folder before a run, without holding
its weights.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakSet

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from configs.errors import ConfigError
from reward_training.transformer.loading.adapters import adapter_told, refuse_adapter
from reward_training.transformer.loading.faults import Loaded, not_finite, number, some
from reward_training.transformer.loading.vocabulary import refuse_larger_tokenizer
from reward_training.transformer.quiet import FAULTS, quiet_transformers
from reward_training.transformer.sharding import Sharding, local, of_all_ranks, sharded_before_loading

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PLAIN_NUMBERS = ("F64", "F32", "F16", "BF16")
"""types in safetensors files that are weights as they stand; transformers casts the others without their scale"""

_embeddings: WeakSet[nn.Module] = WeakSet()
"""of the models that were loaded and are in use; the embedding stays where another head is put on a model's body"""

Loads = type[PreTrainedModel] | type[AutoModelForCausalLM] | type[AutoModelForSequenceClassification]


def read_config(path: Path | str, *, field: str, noun: str, revision: str | None = None) -> PreTrainedConfig:
    """The configuration of the model in the folder, or of the hub, at `path`.

    `field` of the run's configuration names `path`, and `noun` says what should be there.

    Raises:
        ConfigError: there is none, or it is faulty.
    """
    refuse_adapter(path, field)
    with _told(path, field, noun):
        config: PreTrainedConfig = AutoConfig.from_pretrained(str(path), revision=revision)
    return config


def load_model(
    kind: Loads,
    path: Path | str,
    *,
    field: str,
    noun: str,
    new: str | None = None,
    sharding: Sharding | None = None,
    **options: Any,
) -> PreTrainedModel:
    """The model at `path`, with all of its weights as they were saved.

    Weights whose names begin with `new` may be missing; the caller draws and trains them. With `sharding`, which all ranks
    call for together, each reads its parts of the weights and none holds the whole model. `options` go to `from_pretrained`.

    Raises:
        ConfigError: it does not load; it is an adapter; or weights are missing, of another shape, quantised without
            settings, dropped, NaN or infinite.
    """
    refuse_adapter(path, field)
    if sharding is not None:
        model = _load_parts(kind, path, field, noun, sharding, **options)
    else:
        model = _load_whole(kind, path, field, noun, new, **options)
    _embeddings.add(model.get_input_embeddings())
    return model


def models_held() -> WeakSet[nn.Module]:
    """The loaded models that this process holds, each by its embeddings; copies of one in another precision are not among them."""
    return WeakSet(_embeddings)


def _load_whole(
    kind: Loads, path: Path | str, field: str, noun: str, new: str | None, **options: Any
) -> PreTrainedModel:
    loaded = _loaded(kind, path, field, noun, **options)
    _refuse(path, field, loaded.fault(new) or _quantised(path, loaded) or _no_numbers(loaded.model.named_parameters()))
    return loaded.model


def _load_parts(
    kind: Loads, path: Path | str, field: str, noun: str, sharding: Sharding, **options: Any
) -> PreTrainedModel:
    """The sharded model. What its files lack is told before it is read, by the shapes of whole weights."""
    seen = _loaded(kind, path, field, noun, device_map="meta", **options)
    _refuse(path, field, seen.fault() or _quantised(path, seen))
    with sharded_before_loading(sharding) as how:
        model = _loaded(kind, path, field, noun, **options, **how).model
    found = not_finite((name, local(weight)) for name, weight in model.named_parameters())
    _refuse(path, field, _told_of_no_numbers(of_all_ranks(found)))
    return model


def check_weights(
    kind: Loads,
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    *,
    field: str,
    noun: str,
    new: str | None = None,
    **options: Any,
) -> PreTrainedConfig:
    """Check a folder as `load_model` does, one weight after the other, and its tokenizer; returns the configuration.

    Of quantised weights nothing can be said without the kernels that read them.

    Raises:
        ConfigError: in the cases of `load_model`, or the tokenizer has more tokens than the model.
    """
    config = read_config(folder, field=field, noun=noun)
    if is_quantised(config):
        return config
    loaded = _loaded(kind, folder, field, noun, device_map="meta", **options)
    _refuse(folder, field, loaded.fault(new) or _quantised(folder, loaded))
    buffers = {name for name, _ in loaded.model.named_buffers()}
    with _told(folder, field, noun):
        _refuse(folder, field, _no_numbers(_stored(folder, leave_out=loaded.spare | buffers)))
    refuse_larger_tokenizer(loaded.model, tokenizer, field)
    return config


def _loaded(kind: Loads, path: Path | str, field: str, noun: str, **options: Any) -> Loaded:
    options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}  # `Loaded.fault` names them
    with _told(path, field, noun), quiet_transformers():
        loaded: Any = kind.from_pretrained(str(path), **options)
    model, info = loaded
    if getattr(model, "_hf_peft_config_loaded", False):  # of the hub: its files were not here before
        raise ConfigError(adapter_told(path, field))
    return Loaded.of(model, info)


@contextmanager
def _told(path: Path | str, field: str, noun: str) -> Iterator[None]:
    """Tells what transformers raises where a model cannot be loaded."""
    try:
        yield
    except (torch.OutOfMemoryError, ConfigError):
        raise
    except SafetensorError as error:
        raise ConfigError(
            f"{field}: a file of {path} is torn ({error}); copy or save the model again, whole"
        ) from error
    except (OSError, ImportError, *FAULTS) as error:  # some architectures need a package that is not here
        raise ConfigError(f"{path} holds no {noun}: {error}; set {field} to one") from error


def _refuse(path: Path | str, field: str, fault: str | None) -> None:
    if fault is not None:
        raise ConfigError(f"{field}: {path} {fault}")


def is_quantised(config: PreTrainedConfig) -> bool:
    """Whether the configuration says how the weights are quantised."""
    return getattr(config, "quantization_config", None) is not None


def _quantised(path: Path | str, loaded: Loaded) -> str | None:
    """Which weights are quantised, if nothing says how."""
    if is_quantised(loaded.model.config):
        return None
    types = _types(Path(path))
    found = [name for name, _ in loaded.model.named_parameters() if types.get(name, "F32") not in PLAIN_NUMBERS]
    if not found:
        return None
    return (
        f"has {number(found)} of type {types[found[0]]}, and config.json no quantization_config: {some(found)}; take the "
        "config.json that was saved with them, or the weights before they were quantised"
    )


def _no_numbers(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    return _told_of_no_numbers(not_finite(tensors))


def _told_of_no_numbers(found: list[str]) -> str | None:
    return f"has NaN or infinity in its weights: {some(found)}; take an earlier save of it" if found else None


# ---- files ----------------------------------------------------------------------------------------------------------


def _files(folder: Path) -> list[Path]:
    """The safetensors files that transformers loads; none of a model of the hub."""
    if (folder / WHOLE).is_file():
        return [folder / WHOLE]
    index = folder / INDEX
    names = json.loads(index.read_bytes())["weight_map"].values() if index.is_file() else []
    return [folder / name for name in sorted(set(names))]


def _types(folder: Path) -> dict[str, str]:
    """{name: type} of the stored weights."""
    types: dict[str, str] = {}
    for file in _files(folder):
        with safe_open(str(file), framework="pt") as weights:
            types |= {name: weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118
    return types


def _stored(folder: Path, *, leave_out: Collection[str]) -> Iterator[tuple[str, Tensor]]:
    """The stored weights, one after the other."""
    for file in _files(folder):
        with safe_open(str(file), framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118
                if name not in leave_out:
                    yield name, weights.get_tensor(name)
