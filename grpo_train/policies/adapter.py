"""Training a low-rank adapter instead of all weights (LoRA, arXiv 2106.09685), by PEFT.

The adapter is put into the model in place; its weights alone are trained, are in checkpoints and have optimizer state. A policy on disk
is always the merged model, W + (alpha / rank) B A (section 4.1 there), so that whatever reads policies need not know of adapters. Where the
adapter is carried on over rounds, it stands beside the model, with the name of the policy that it changes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model
from transformers import PreTrainedModel

from configs.disk.files import write_json
from configs.errors import ConfigError
from configs.records import Policy
from configs.schema.grpo import LoraConfig
from grpo_train.policies.model import open_policy

FOLDER = "adapter"
ORIGIN = "origin.json"


class Adapter:
    """An adapter in a model that `load_policy` gave; `merge` ends it."""

    def __init__(self, model: PreTrainedModel, lora: LoraConfig, *, seed: int, carried: Path | None = None) -> None:
        """A new one, drawn from `seed`, that changes nothing yet; or the one in the folder `carried`, to be trained on.

        Raises:
            ConfigError: the model has no module of a name in `target_modules`.
        """
        self._lora = lora
        if carried is not None:
            self._model = PeftModel.from_pretrained(model, str(carried), is_trainable=True)
            return
        targets = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
        wanted = PeftLoraConfig(
            r=lora.rank, lora_alpha=lora.alpha, target_modules=targets, bias="none", task_type="CAUSAL_LM"
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            try:
                self._model = get_peft_model(model, wanted)
            except ValueError as error:
                raise ConfigError(
                    f"grpo_config.lora.target_modules={lora.target_modules!r} does not fit the model: {error}"
                ) from error

    def save(self, folder: Path, base: Policy) -> None:
        """Write the adapter, which policy it stands on, and the settings that it was made with."""
        self._model.save_pretrained(str(folder))
        write_json(folder / ORIGIN, _origin(base, self._lora))

    def merge(self) -> PreTrainedModel:
        """The model with the adapter added to its weights; the adapter is gone."""
        merged: PreTrainedModel = self._model.merge_and_unload()
        return merged


def carried_adapter(policy: Policy, lora: LoraConfig) -> tuple[Policy, Path] | None:
    """Base and folder of the adapter that training goes on with, where `policy` has one of these settings and it is to be carried on."""
    folder = Path(policy.path).parent / FOLDER
    if lora.between_rounds == "merge" or not (folder / ORIGIN).exists():
        return None
    origin = json.loads((folder / ORIGIN).read_bytes())
    base = Policy.model_validate(origin["base"])
    return (base, folder) if origin == _origin(base, lora) and _is_there(base) else None


def _origin(base: Policy, lora: LoraConfig) -> dict[str, Any]:
    return {"base": base.model_dump(mode="json"), "lora": lora.model_dump(mode="json")}


def _is_there(base: Policy) -> bool:
    """Whether the base's weights are still those that the adapter stands on."""
    return Path(base.path).is_dir() and open_policy(Path(base.path), base.round).id == base.id
