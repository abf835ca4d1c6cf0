"""Loads what the value model of PPO begins from in a round, and the samples that it is warmed up on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from configs.disk.files import read_jsonl
from configs.errors import ConfigError
from configs.records import Completion, Policy, Score
from configs.schema.config import Config
from configs.schema.methods.method import OF_POLICY, PpoMethod
from configs.seeds import seed_for
from grpo_train.updating.critic import ValueModel, ValueSamples
from reward_training.reward_models.backbone import load_backbone
from reward_training.reward_models.scores import read_calibration
from reward_training.scorer import RewardModelSource
from reward_training.transformer.loading.tokenizer import read_tokenizer
from reward_training.transformer.quiet import quiet_transformers
from reward_training.weighing import Weighing
from tasks.stages.samples import Samples


def load_value_model(
    config: Config,
    round_index: int,
    policy: Policy,
    tokenizer: PreTrainedTokenizerBase,
    reward_models: Mapping[str, RewardModelSource],
    samples: Samples | None,
    warn: Callable[[str], None],
) -> ValueModel | None:
    """What a round's value model begins from; None for a method without one.

    Args:
        policy: the one that training starts from.
        tokenizer: the policy's.
        reward_models: those that the round scores with.
        samples: those of the round before; None where nothing is warmed up.

    Raises:
        ConfigError: no value model can be made of it, or its tokenizer is not the policy's.
    """
    method = config.method
    if not isinstance(method, PpoMethod):
        return None
    source = reward_models.get(method.value_model)
    if source is None and method.value_model != OF_POLICY:
        warn(
            f"round {round_index} scores without reward model {method.value_model!r}; the value model begins from the policy"
        )
    warmup = (
        ValueSamples()
        if samples is None
        else _samples(samples, policy, Weighing.at(config.rewards, round_index, step=1))
    )
    if samples is not None and not warmup.completions:
        warn(
            f"round {round_index}: {samples.completions} has no response of the policy that its rewards scored, so the value model is not warmed up"
        )
    if source is None:
        model = _load(Path(policy.path), method.value_model, seed=0)
        _zero_head(model)
        return ValueModel(model, None, warmup)
    folder = Path(source.path)
    refuse_other_tokens(method.value_model, folder, tokenizer)
    seed = seed_for(config.seed, "value model", round_index=round_index)
    return ValueModel(_load(folder, method.value_model, seed), read_calibration(folder), warmup)


def refuse_other_tokens(value_model: str, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse to make a value model of the reward model in `folder` unless its tokens are those of the policy's `tokenizer`.

    Raises:
        ConfigError: they differ.
    """
    if read_tokenizer(folder).get_vocab() != tokenizer.get_vocab():
        raise ConfigError(
            f"method.value_model={value_model!r}: its tokenizer is not the policy's, whose tokens a value model reads; use policy, "
            f"or leave reward_models.{value_model}.backbone out"
        )


def _load(folder: Path, value_model: str, seed: int) -> PreTrainedModel:
    try:
        with quiet_transformers():
            return load_backbone(folder, seed)
    except ConfigError as error:
        raise ConfigError(f"method.value_model={value_model!r}: {error}") from error


def _zero_head(model: PreTrainedModel) -> None:
    """Set the head to zeros: what is not known yet is expected to be 0."""
    with torch.no_grad():
        for weight in model.get_submodule("score").parameters():
            weight.zero_()


def _samples(samples: Samples, policy: Policy, weighing: Weighing) -> ValueSamples:
    """The policy's responses in a regeneration that each of this round's rewards scored there, and their weighted sums.

    A reward model that was trained since scored none of them, and is left out: it is calibrated to a mean of 0.
    """
    rows = zip(read_jsonl(Path(samples.completions), Completion), read_jsonl(Path(samples.scores), Score), strict=True)
    scored = [
        (completion, total)
        for completion, score in rows
        if completion.policy_id == policy.id and (total := weighing.known_total(score.parts)) is not None
    ]
    return ValueSamples([completion for completion, _ in scored], [total for _, total in scored])
