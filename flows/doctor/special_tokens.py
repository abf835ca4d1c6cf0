"""Tells which special tokens of the policy rewards look for: they stay in responses, or cannot be there."""

import inspect
from collections.abc import Iterator

from transformers import PreTrainedTokenizerBase

from configs.errors import ConfigError
from configs.schema.config import Config
from configs.schema.rewards import PythonRewardConfig
from flows.doctor.checks import Finding
from grpo_train.sampling.decoding import Decoder
from reward_training.rewards.python_function import load_function
from reward_training.rewards.sought import texts_sought


def check_special_tokens(config: Config, tokenizer: PreTrainedTokenizerBase) -> Iterator[Finding]:
    """A finding for each reward that looks for special tokens, a warning where it cannot find them."""
    for reward in [*config.rewards, *config.evaluation.rewards]:
        title = f"reward {reward.name}"
        if isinstance(reward, PythonRewardConfig):
            yield from _check_function(title, reward, tokenizer, texts_sought(config.rewards))
            continue
        sought = texts_sought([reward])
        decode = Decoder(tokenizer, sought)
        if kept := decode.kept_of(sought):
            told = f"looks for special tokens of the tokenizer, {', '.join(kept)}: they stay in responses"
            yield Finding(title, "ok", told)
        if lost := decode.dropped_of(sought):
            detail = f"looks for {', '.join(lost)}, which ends a response and is no part of its text"
            yield Finding(
                title, "warn", detail, f"take it out of the pattern or tags of {reward.name}: it is never found"
            )


def _check_function(
    title: str, reward: PythonRewardConfig, tokenizer: PreTrainedTokenizerBase, sought: frozenset[str]
) -> Iterator[Finding]:
    """A warning where the function's file names special tokens that no other reward looks for: it does not get them."""
    try:
        source = inspect.getsource(inspect.getmodule(load_function(reward.function)))  # type: ignore[arg-type]
    except (ConfigError, OSError, TypeError):
        return  # check_rewards tells it, or there is no source to look at
    decode = Decoder(tokenizer, sought)
    could_stay = Decoder(tokenizer, [source]).kept_of([source])
    if lost := [token for token in decode.dropped_of([source]) if token in could_stay]:
        detail = (
            f"the file of {reward.function} names {', '.join(lost)}: special tokens, which are left out of responses"
        )
        remedy = (
            "a reward of kind format with weight 0 whose pattern names them keeps them; or read completion.token_ids"
        )
        yield Finding(title, "warn", detail, remedy)
