"""Estimates the time of a round from one batch of sampled responses and one forward and backward pass on them."""

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeVar

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from configs.records import Completion, Problem
from configs.schema.comparing.budget import BudgetConfig
from configs.schema.config import Config
from configs.schema.measuring.retention import ChoiceSuite, GenerateSuite, RetentionSuite, TextSuite
from configs.schema.methods.method import BestOfNMethod, PairMethod, PpoMethod
from configs.seeds import seed_for
from grpo_train.measuring.evaluation import num_responses
from grpo_train.measuring.retention.likelihood import choice_rows, encoded_choices, encoded_texts, text_rows
from grpo_train.measuring.retention.suites import read_choices, read_texts
from grpo_train.sampling.generation import Sampling, sample
from grpo_train.trainer import num_steps
from grpo_train.updating.loss import BatchSize, policy_loss
from grpo_train.updating.response_logprobs import micro_batches, response_logprobs
from reward_training.transformer.precision import autocast_dtype, cast_weights

T = TypeVar("T")

TIMED_TOKENS = 64
"""tokens after which timed responses are cut; the time of longer ones is extrapolated"""
FORWARD_SHARE = 1 / 3
"""of the time of forward and backward pass, that of the forward pass"""
TIMED_ROWS = 64
"""most responses that are timed together"""
TIMED_ITEMS = 8
"""items of a suite that are timed; the time of the others follows from their tokens"""
OLD_ABILITIES = "old abilities"


@dataclass(frozen=True)
class Speed:
    """The measured speed of the model."""

    seconds_per_response: float
    """seconds to sample one response in a batch, at the length that this model's responses have"""
    seconds_per_trained_response: float
    """seconds for forward and backward pass of one response"""
    reading_s: float = 0.0
    """seconds for the suites of texts and choices"""
    tokens_per_response: float = 1.0
    """mean length of the responses"""


@dataclass(frozen=True)
class RoundTime:
    """Expected seconds of a round, by stage."""

    seconds: dict[str, float]

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


def time_a_round(
    config: Config,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    counts: dict[str, int],
) -> RoundTime:
    """Expected time of a round, from a short timing on some of `problems`; an upper estimate, as dead groups cost less.

    `counts` are the sizes of the splits. The model's weights do not change, and its gradients are cleared afterwards.
    """
    return round_time(config, measure_speed(config, model, tokenizer, problems), counts)


def round_time(config: Config, speed: Speed, counts: dict[str, int]) -> RoundTime:
    """Seconds of each stage of a round at the given speed."""
    regenerated = config.regeneration.num_problems * config.regeneration.group_size
    num_pairs = {
        name: min(model.max_pairs, config.regeneration.num_problems * model.pairs_per_problem) * model.epochs
        for name, model in config.trained_reward_models.items()
    }
    return RoundTime(
        {
            **{f"reward model {name}": 2 * n * speed.seconds_per_trained_response for name, n in num_pairs.items()},
            "policy": _of_policy(config, speed, counts["train"]),
            "evaluate": num_responses(config, counts["dev"] + counts["test"]) * speed.seconds_per_response,
            **({OLD_ABILITIES: _of_suites(config, speed)} if config.evaluation.retention else {}),
            "regenerate": regenerated * speed.seconds_per_response,
        }
    )


def _of_policy(config: Config, speed: Speed, num_problems: int) -> float:
    """Seconds of a round's training of the policy on that many problems."""
    method, grpo = config.method, config.grpo_config
    if isinstance(method, PairMethod):
        return _of_pairs(config, method, speed)
    steps, per_step = num_steps(grpo, num_problems), grpo.batch_size // grpo.group_size
    if isinstance(method, BestOfNMethod) and method.mode == "offline":  # a problem is asked once
        num_asked = min(steps * per_step, num_problems)
        sampled = num_asked * grpo.group_size * speed.seconds_per_response
        return sampled + method.epochs * num_asked * speed.seconds_per_trained_response
    num_trained = (per_step if isinstance(method, BestOfNMethod) else grpo.batch_size) * grpo.row_sampling.share
    passes = grpo.updates_per_batch * (1 + (FORWARD_SHARE if grpo.kl_coefficient else 0))
    step = grpo.batch_size * speed.seconds_per_response + num_trained * passes * speed.seconds_per_trained_response
    step += _of_value_model(config, speed)
    return _within_budget(config, speed, steps, step) * step + _of_value_warmup(config, speed)


def _within_budget(config: Config, speed: Speed, steps: int, step_s: float) -> int:
    """The number of steps up to the one that spends the budget, of steps that take `step_s` seconds; all without a budget."""
    match config.budget:
        case BudgetConfig(generated_tokens=int(tokens)):
            return min(steps, math.ceil(tokens / (config.grpo_config.batch_size * speed.tokens_per_response)))
        case BudgetConfig(train_seconds=float(seconds)):
            return min(steps, math.ceil(seconds / step_s))
    return steps


def _of_suites(config: Config, speed: Speed) -> float:
    """Seconds of the suites and of the forward KL; responses of `generate` are taken to be as long as those of training, and as much
    longer as their limit is."""
    limit = config.grpo_config.max_response_length
    suites = [suite for suite in config.evaluation.retention.values() if isinstance(suite, GenerateSuite)]
    generated = sum(suite.num_items * max(1.0, suite.max_response_length / limit) for suite in suites)
    read = config.evaluation.num_kl_problems * FORWARD_SHARE * speed.seconds_per_trained_response
    return speed.reading_s + generated * speed.seconds_per_response + read


def _of_value_model(config: Config, speed: Speed) -> float:
    """Seconds that a value model of the policy's size adds to a step: its updates, and a forward pass before."""
    method, grpo = config.method, config.grpo_config
    if not isinstance(method, PpoMethod):
        return 0.0
    passes = (method.value_updates or grpo.updates_per_batch) + FORWARD_SHARE
    return passes * grpo.batch_size * speed.seconds_per_trained_response


def _of_value_warmup(config: Config, speed: Speed) -> float:
    """Seconds of the updates of a value model before the first step."""
    if not isinstance(config.method, PpoMethod):
        return 0.0
    regenerated = config.regeneration.num_problems * config.regeneration.group_size
    num_rows = config.method.value_warmup_updates * min(config.grpo_config.batch_size, regenerated)
    return num_rows * speed.seconds_per_trained_response


def _of_pairs(config: Config, method: PairMethod, speed: Speed) -> float:
    """Seconds of a training on as many pairs as there can be, with the reference's forward pass over each."""
    num_pairs = method.epochs * method.pairs_per_problem * config.regeneration.num_problems
    return 2 * num_pairs * speed.seconds_per_trained_response * (1 + FORWARD_SHARE)


def measure_speed(
    config: Config, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, problems: Sequence[Problem]
) -> Speed:
    dtype = autocast_dtype(config.grpo_config.precision, model.device)
    actor = model
    if dtype is not None:
        actor = copy.deepcopy(model)
        cast_weights(actor, dtype)
    # the first sampling and the first backward pass initialise libraries, so they are not timed
    _sample(config, actor, tokenizer, problems[:1], rows=2, length=2)
    length = min(TIMED_TOKENS, config.grpo_config.max_response_length)
    rows = min(TIMED_ROWS, config.grpo_config.generation_rows, config.grpo_config.batch_size)
    completions, seconds = _timed(
        lambda: _sample(config, actor, tokenizer, problems, rows=rows, length=length), model.device
    )
    stretch = _stretch(completions, length, config.grpo_config.max_response_length)
    _forward_backward(config, actor, completions[:2])
    _, trained = _timed(lambda: _forward_backward(config, actor, completions), model.device)
    return Speed(
        seconds / len(completions) * stretch,
        trained / len(completions) * stretch,
        sum(
            _seconds_to_read(config, name, suite, actor, tokenizer)
            for name, suite in config.evaluation.retention.items()
        ),
        fmean(len(completion.token_ids) for completion in completions) * stretch,
    )


def _seconds_to_read(
    config: Config, name: str, suite: RetentionSuite, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> float:
    """Seconds of a suite of texts or choices, from those of its first items and the tokens of all; 0 for other suites."""
    max_tokens = config.grpo_config.micro_batch_tokens
    match suite:
        case TextSuite():
            texts = read_texts(suite, name)
            lengths = [len(ids) for ids in encoded_texts(tokenizer, texts, suite, name)]
            first = texts[:TIMED_ITEMS]
            _, seconds = _timed(
                lambda: text_rows(model, tokenizer, first, suite, name, max_tokens=max_tokens), model.device
            )
        case ChoiceSuite():
            items = read_choices(suite, name)
            lengths = [_num_tokens(encoded_choices(tokenizer, [item], suite, name)) for item in items]
            some = items[:TIMED_ITEMS]
            _, seconds = _timed(
                lambda: choice_rows(model, tokenizer, some, suite, name, max_tokens=max_tokens), model.device
            )
        case _:
            return 0.0
    return seconds * sum(lengths) / sum(lengths[:TIMED_ITEMS])


def _num_tokens(choices: Sequence[Completion]) -> int:
    """Tokens that are read of a question and its choices."""
    return len(choices[0].prompt_ids) + sum(len(choice.token_ids) for choice in choices)


def _sample(
    config: Config,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    *,
    rows: int,
    length: int,
) -> list[Completion]:
    group_size = min(rows, config.grpo_config.group_size)
    asked = problems[: max(1, rows // group_size)]
    sampling = Sampling(group_size, config.grpo_config.temperature, length, max_rows=rows)
    return sample(model, tokenizer, asked, sampling, seed=seed_for(config.seed, "doctor"), policy_id="timing")


def _stretch(completions: Sequence[Completion], timed: int, limit: int) -> float:
    """Factor from the timed lengths to full lengths: responses cut at `timed` tokens are assumed to reach `limit`."""
    lengths = [len(completion.token_ids) for completion in completions]
    full_lengths = [limit if length >= timed else length for length in lengths]
    return max(1.0, sum(full_lengths) / max(1, sum(lengths)))


def _forward_backward(config: Config, model: PreTrainedModel, completions: Sequence[Completion]) -> None:
    """Forward and backward pass over the responses, as in an update, without the optimizer step."""
    rows = range(len(completions))
    size = BatchSize(len(completions), sum(len(completion.token_ids) for completion in completions))
    for batch in micro_batches(model, completions, rows, config.grpo_config.micro_batch_tokens):
        advantages = torch.ones(len(batch.rows), device=model.device)
        logprobs = response_logprobs(model, batch, config.grpo_config.temperature)
        loss = policy_loss(logprobs, advantages, batch.mask, grpo=config.grpo_config, size=size)
        loss.value.backward()  # type: ignore[no-untyped-call]
    model.zero_grad(set_to_none=True)


def _timed(work: Callable[[], T], device: torch.device) -> tuple[T, float]:
    start = time.perf_counter()
    result = work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return result, time.perf_counter() - start
