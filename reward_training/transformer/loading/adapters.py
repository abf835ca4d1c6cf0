"""Folders of PEFT adapters: refused where a model is wanted, and loaded whole where a run carries its own on."""

from __future__ import annotations

import json
from pathlib import Path

from peft import PeftConfig, PeftModelForCausalLM
from transformers import PreTrainedModel

from configs.errors import ConfigError
from reward_training.transformer.loading.faults import some

SETTINGS = "adapter_config.json"
VOCABULARY = ("lm_head", "embed_out", "embed_tokens", "embed_in", "wte", "word_embeddings", "shared")
"""names of output layers and embeddings"""


def refuse_adapter(path: Path | str, field: str) -> None:
    """Refuse a folder with an adapter, which transformers would put into a model that is loaded from elsewhere.

    Raises:
        ConfigError: it holds one; the message says how to merge it.
    """
    if (Path(path) / SETTINGS).is_file():
        raise ConfigError(adapter_told(path, field))


def adapter_told(path: Path | str, field: str) -> str:
    """The error for an adapter at `path`."""
    file = Path(path) / SETTINGS
    settings = json.loads(file.read_bytes()) if file.is_file() else {}
    adapted = [*_listed(settings.get("target_modules")), *_listed(settings.get("modules_to_save"))]
    tied = sorted({name for name in VOCABULARY for module in adapted if str(module).rpartition(".")[2] == name})
    base = settings.get("base_model_name_or_path") or "its base model"
    untied = (
        f"; it changes {' and '.join(tied)}: if its base has tie_word_embeddings, load that with tie_word_embeddings=False, or the "
        "merged model is another than the trained one"
    )
    return (
        f"{field}: {path} holds a PEFT adapter, no whole model; load it on {base}, save what `merge_and_unload()` returns, "
        f"and set {field} to that" + (untied if tied else "")
    )


def _listed(modules: str | list[str] | None) -> list[str]:
    return [modules] if isinstance(modules, str) else modules or []


def load_adapter(model: PreTrainedModel, folder: Path) -> PeftModelForCausalLM:
    """The model with the adapter of the folder in it, to be trained on.

    Raises:
        ConfigError: the folder lacks weights of the adapter, or has others; PEFT would only warn, or say nothing.
    """
    settings = PeftConfig.from_pretrained(str(folder))
    settings.inference_mode = False
    adapted = PeftModelForCausalLM(model, settings)
    found = adapted.load_adapter(str(folder), "default", is_trainable=True)
    if wrong := [*found.missing_keys, *found.unexpected_keys]:
        raise ConfigError(
            f"the adapter in {folder} does not fit its model: it lacks {len(found.missing_keys)} weights and has "
            f"{len(found.unexpected_keys)} others ({some(wrong)}); remove the folder, and the round begins a new adapter"
        )
    return adapted
