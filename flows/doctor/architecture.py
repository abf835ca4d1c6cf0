"""Checks that the models' positions suffice, and that the policy can be sampled and trained as its architecture is."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase

from configs.errors import ConfigError
from configs.records import Problem
from configs.schema.config import Config
from configs.schema.lora import LoraSettings
from configs.schema.reward_models import ServedRewardModel
from flows.doctor.checks import Finding, reward_model_folder
from grpo_train.policies.model_source import is_model_folder
from grpo_train.sampling.trial import Way, way_of
from reward_training.reward_models.heads import causal_class, classifier_class
from reward_training.transformer.limits import Positions, position_limit
from reward_training.transformer.loading.weights import read_config
from reward_training.transformer.lora import try_lora
from reward_training.transformer.rendering import encode_prompt
from reward_training.transformer.token_logprobs import body_of
from reward_training.transformer.trial import layout_of

BY_GENERATE = "docs/models.md says what that costs"
WAYS: dict[Way, str] = {
    "packed": "by a cache of keys and values",
    "padded": "by a cache of keys and values, padded prompts",
    "generate": "by transformers' generate, prompts of equal length together",
    "recompute": "by transformers' generate without a cache: each token costs a pass over all before it",
}


def check_positions(
    config: Config, folder: Path, tokenizer: PreTrainedTokenizerBase, problems: Sequence[Problem]
) -> Iterator[Finding]:
    """Failures where prompt and response, or a reward model's conversations, may exceed the model's positions."""
    limit = position_limit(AutoConfig.from_pretrained(str(folder)))
    response = config.grpo_config.max_response_length
    if limit is not None and config.problems.max_prompt_length + response > limit.num_tokens:
        prompt = longest_prompt(tokenizer, problems)
        if prompt + response > limit.num_tokens:
            detail = (
                f"the longest prompt has {prompt} tokens, and with grpo_config.max_response_length={response} that is "
                f"{prompt + response}: more than the model's {_described(limit)}"
            )
            yield Finding("positions", "fail", detail, _remedy(limit.num_tokens - response, limit.num_tokens - prompt))
    for name, model in config.reward_models.items():
        if model.max_length > (bound := _reward_model_limit(config, name, folder)).num_tokens:
            detail = f"reward_models.{name}.max_length={model.max_length} is more than the model's {_described(bound)}"
            remedy = f"lower reward_models.{name}.max_length to {bound.num_tokens}, or take another model"
            yield Finding(f"reward model {name}", "fail", detail, remedy)


def _described(limit: Positions) -> str:
    return f"{limit.field}={limit.num_tokens}, and {limit.reason}"


def _remedy(prompt_room: int, response_room: int) -> str:
    ways = [
        f"lower grpo_config.max_response_length to {response_room}" if response_room > 0 else "",
        f"lower problems.max_prompt_length to {prompt_room}" if prompt_room > 0 else "",
        "take a model with more positions",
    ]
    return ", or ".join(way for way in ways if way)


def longest_prompt(tokenizer: PreTrainedTokenizerBase, problems: Sequence[Problem]) -> int:
    """Tokens of the longest prompt, in its longest wording."""
    wordings = [
        problem.model_copy(update={"prompt": prompt})
        for problem in problems
        for prompt in (problem.prompt, *problem.variants)
    ]
    return max((len(encode_prompt(tokenizer, wording)) for wording in wordings), default=0)


def check_adapters(config: Config, folder: Path) -> Iterator[Finding]:
    """Failures where a low-rank adapter has no module to adapt, of the policy or of a reward model."""
    blocks: list[tuple[str, LoraSettings, Path]] = []
    if config.grpo_config.lora is not None:
        blocks.append(("grpo_config.lora", config.grpo_config.lora, folder))
    for name, model in config.trained_reward_models.items():
        if model.lora is not None:
            blocks.append((f"reward_models.{name}.lora", model.lora, reward_model_folder(config, name, folder)))
    for field, lora, base in blocks:
        if not is_model_folder(base):
            continue
        try:
            settings = read_config(base, field=field, noun="model")
            if field == "grpo_config.lora":
                try_lora(causal_class(settings), settings, lora, "CAUSAL_LM", field)
            else:
                try_lora(classifier_class(settings), settings, lora, "SEQ_CLS", field)
        except ConfigError as error:
            yield Finding("adapter", "fail", str(error), "name modules of the model, or leave target_modules out")


def _reward_model_limit(config: Config, name: str, policy: Path) -> Positions:
    """The positions of a reward model that is here, or of the policy, which a trained one begins from."""
    model, here = config.reward_models[name], reward_model_folder(config, name, policy)
    try:
        is_here = is_model_folder(here) or (isinstance(model, ServedRewardModel) and here.is_dir())
        limit = position_limit(AutoConfig.from_pretrained(str(here))) if is_here else None
    except (OSError, ValueError):
        limit = None  # check_rewards tells it
    return limit or Positions(2**31, "", "")


def check_architecture(
    config: Config, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, problems: Sequence[Problem]
) -> Finding:
    """How the policy is sampled and trained at the lengths of the run; a failure if it cannot be."""
    longest = longest_prompt(tokenizer, problems) + config.grpo_config.max_response_length
    try:
        way = way_of(model, longest)
    except ConfigError as error:
        return Finding("architecture", "fail", str(error))
    layout = layout_of(model, body_of(model))(longest)
    rows = {"shared": "rows that share beginnings", "own": "a row for each response", "plain": "rows of equal length"}
    detail = f"{model.config.model_type}: sampled {WAYS[way]}; trained on {rows[layout]}"
    is_slow = way in ("generate", "recompute")
    return Finding("architecture", "warn" if is_slow else "ok", detail, BY_GENERATE if is_slow else "")
