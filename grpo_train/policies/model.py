"""Loads and saves policies: folders that `from_pretrained` reads, identified by a hash of their weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import torch
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from configs.disk.files import weights_id
from configs.errors import ConfigError
from configs.records import Policy, TemplateSettings
from grpo_train.policies.gathered import save_gathered
from reward_training.transformer.chat_template import PLAIN, set_up_template
from reward_training.transformer.loading.tokenizer import read_tokenizer
from reward_training.transformer.loading.vocabulary import refuse_larger_tokenizer
from reward_training.transformer.loading.weights import check_weights, load_model, read_config
from reward_training.transformer.precision import autocast_dtype, pick_device
from reward_training.transformer.quiet import quiet_transformers
from reward_training.transformer.sharding import Sharding, is_sharded
from reward_training.transformer.turn_ends import end_token_ids

GENERATION = "generation_config.json"
FIELD, NOUN = "policy.path", "causal language model"
RESERVED_PADS = ("<|finetune_right_pad_id|>", "<|endoftext|>", "<pad>", "[PAD]", "<unk>")
"""reserved tokens that can be the pad token of a model without one, best first"""


def load_policy(
    path: str | Path,
    *,
    device: str | torch.device,
    dtype: torch.dtype = torch.float32,
    template: TemplateSettings = PLAIN,
    sharding: Sharding | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model in evaluation mode on `device`, and its tokenizer with a pad token and the run's `template` settings.

    With `sharding`, which all ranks call for together, each holds a part of the model.

    What ends a turn in the chat template ends a response, also in the model that is saved later.

    Raises:
        ConfigError: `path` holds no causal language model, or not all of it (`loading.weights`).
    """
    ends, tokenizer = _token_ids(Path(path)), load_tokenizer(path, template)
    model = load_model(
        AutoModelForCausalLM, path, field=FIELD, noun=NOUN, sharding=sharding, dtype=dtype, generation_config=ends
    )
    refuse_larger_tokenizer(model, tokenizer, FIELD)
    model.config.pad_token_id = tokenizer.pad_token_id
    model.generation_config = greedy_generation(model.generation_config, tokenizer)
    return model.to(device).eval(), tokenizer  # type: ignore[arg-type]


def check_policy(folder: Path) -> PreTrainedConfig:
    """Check a policy's folder as `load_policy` does, without holding its weights; returns its configuration.

    Raises:
        ConfigError: in the cases of `load_policy`.
    """
    ends, tokenizer = _token_ids(folder), load_tokenizer(folder)
    return check_weights(AutoModelForCausalLM, folder, tokenizer, field=FIELD, noun=NOUN, generation_config=ends)


def load_for_sampling(
    path: str | Path, precision: Literal["auto", "bfloat16", "float32"], template: TemplateSettings
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A policy for sampling only: on the best device, with low-precision weights where the device supports them."""
    device = pick_device()
    return load_policy(path, device=device, dtype=autocast_dtype(precision, device) or torch.float32, template=template)


def load_tokenizer(path: str | Path, template: TemplateSettings = PLAIN) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or hub id, with a pad token and the run's `template` settings.

    Raises:
        ConfigError: `path` holds no tokenizer, one without an end-of-sequence token, or one whose chat template does not
            read a variable of `template`.
    """
    tokenizer = read_tokenizer(path)
    if tokenizer.eos_token_id is None:
        raise ConfigError(f"the tokenizer of {path} has no eos_token; responses could not end: set it in its files")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = _pad_token(tokenizer)
    set_up_template(tokenizer, template, field="problems.template_variables")
    return tokenizer


def _pad_token(tokenizer: PreTrainedTokenizerBase) -> str:
    """The first reserved token in the vocabulary that is not the end-of-sequence token, or else that token."""
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    reserved = (token for token in RESERVED_PADS if token in vocabulary and token != tokenizer.eos_token)
    return next(reserved, str(tokenizer.eos_token))


def greedy_generation(brought: GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """Settings with which `generate` decodes as the sampler does: greedily, until an end token, and nothing else.

    Of what the model brings (temperature, min_p, repetition_penalty, beams, a length, ...) only its end tokens are kept:
    the rest was not in what was measured, and transformers refuses to save some of it beside `do_sample: false`.
    """
    ends = end_token_ids(brought, tokenizer)
    return GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False,
        bos_token_id=brought.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=ends if len(ends) > 1 else ends[0],
    )


def _token_ids(folder: Path) -> GenerationConfig:
    """What the folder's generation_config.json, or else its configuration, says of end and beginning, and nothing else of it:
    transformers refuses to load some of the rest (`num_return_sequences` without sampling).

    Raises:
        ConfigError: the folder has no configuration, or a file is no JSON.
    """
    file, config = folder / GENERATION, read_config(folder, field=FIELD, noun=NOUN)
    try:
        given = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else vars(config.get_text_config())
        ids = {name: given.get(name) for name in ("eos_token_id", "bos_token_id")}
        return GenerationConfig(**ids)  # type: ignore[no-untyped-call]
    except (ValueError, AttributeError) as error:
        raise ConfigError(f"{file} is faulty: {error}; mend or remove it") from error


def policy_stop_ids(folder: Path, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Ids of the tokens that end a response of the policy in `folder`, as of its model once it is loaded."""
    return set(end_token_ids(_token_ids(folder), tokenizer))


def write_greedy_generation(folder: Path) -> None:
    """Replace the folder's generation_config.json by `greedy_generation`, so that `generate` does what was measured."""
    greedy_generation(_token_ids(folder), load_tokenizer(folder)).save_pretrained(str(folder))


def save_policy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, *, round_index: int
) -> Policy:
    """Write weights (safetensors), tokenizer and chat template to `folder`. Of a sharded model, all ranks call it."""
    folder.mkdir(parents=True, exist_ok=True)
    model.generation_config = greedy_generation(model.generation_config, tokenizer)
    with quiet_transformers():
        if is_sharded(model):
            save_gathered(model, folder)
        else:
            model.save_pretrained(str(folder))
        tokenizer.save_pretrained(str(folder))
    return open_policy(folder, round_index)


def open_policy(folder: Path, round_index: int) -> Policy:
    """The record of a saved policy."""
    return Policy(path=str(folder), id=policy_id(folder), round=round_index)


def policy_id(folder: Path) -> str:
    """Content hash of the weights in `folder`."""
    return weights_id(folder)
