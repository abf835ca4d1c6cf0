"""Trains a low-rank adapter instead of all weights (LoRA, arXiv 2106.09685), by PEFT.

The adapter is inserted into the model in place; only its weights are trained, saved in checkpoints and given optimizer
state. A policy on disk is always the merged model, W + (alpha / rank) B A (section 4.1 of the paper), so code that
reads policies need not know about adapters. An adapter that is carried on over rounds is saved beside the model, with
the record of its base policy.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from transformers import PreTrainedModel

from configs.disk.files import write_json
from configs.paths import context_of
from configs.records import Policy
from configs.schema.grpo import LoraConfig
from grpo_train.policies.model import open_policy
from reward_training.transformer.loading.adapters import load_adapter
from reward_training.transformer.lora import inserted, lora_config, merge

FIELD = "grpo_config.lora"
FOLDER = "adapter"
ORIGIN = "origin.json"
MODEL_CARD = "README.md"
"""which PEFT writes, with the whole path of the base and nothing that is of use here"""


class Adapter:
    """A LoRA adapter in a model that `load_policy` returned; `merge` removes it again."""

    def __init__(self, model: PreTrainedModel, lora: LoraConfig, *, seed: int, carried: Path | None = None) -> None:
        """Insert a new adapter, drawn from `seed`, that changes nothing yet; or train on the one in folder `carried`.

        Raises:
            ConfigError: `target_modules` names no module of the model, or one whose weight is tied to another's; or
                the carried adapter is not whole.
        """
        self._lora = lora
        wanted = lora_config(model.config, lora, "CAUSAL_LM")
        with torch.random.fork_rng(), inserted(lora, FIELD, model):
            torch.manual_seed(seed)
            self._model: Any = get_peft_model(model, wanted) if carried is None else load_adapter(model, carried)

    def save(self, folder: Path, base: Policy) -> None:
        """Write the adapter, the record of its base policy, and the settings that it was made with."""
        stored = base.model_dump(mode="json", context=context_of(folder))
        self._model.peft_config["default"].base_model_name_or_path = stored["path"]
        self._model.save_pretrained(str(folder), save_embedding_layers=False)  # they are those of the base
        (folder / MODEL_CARD).unlink(missing_ok=True)
        write_json(folder / ORIGIN, {"base": stored, "lora": _settings(self._lora)})

    def merge(self) -> PreTrainedModel:
        """Merge the adapter into the model's weights; returns the model without the adapter."""
        return merge(self._model)


def carried_adapter(policy: Policy, lora: LoraConfig) -> tuple[Policy, Path] | None:
    """(base policy, folder) of the adapter with which training goes on.

    None where adapters are merged between rounds, or `policy` has no adapter of these settings whose base is still
    there.
    """
    folder = Path(policy.path).parent / FOLDER
    if lora.between_rounds == "merge" or not (folder / ORIGIN).exists():
        return None
    origin = json.loads((folder / ORIGIN).read_bytes())
    base = Policy.model_validate(origin["base"], context=context_of(folder))
    return (base, folder) if origin["lora"] == _settings(lora) and _is_there(base) else None


def _settings(lora: LoraConfig) -> dict[str, Any]:
    return lora.model_dump(mode="json")


def _is_there(base: Policy) -> bool:
    """Whether the base policy's folder still holds the weights that the adapter was trained on."""
    return Path(base.path).is_dir() and open_policy(Path(base.path), base.round).id == base.id
