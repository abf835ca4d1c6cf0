"""Estimates the time of a round from one batch of sampled responses and one forward and backward pass on them."""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from configs.records import Completion, Problem
from configs.schema.config import Config
from configs.seeds import seed_for
from grpo_train.measuring.evaluation import num_responses
from grpo_train.sampling.generation import Sampling, sample
from grpo_train.trainer import num_steps
from grpo_train.updating.loss import BatchSize, policy_loss
from grpo_train.updating.response_logprobs import micro_batches, response_logprobs
from reward_training.transformer.precision import autocast_dtype, cast_weights

T = TypeVar("T")

TIMED_TOKENS = 64
"""tokens after which timed responses are cut; the time of longer ones is extrapolated"""
TIMED_ROWS = 64
"""most responses that are timed together"""


@dataclass(frozen=True)
class Speed:
    """The measured speed of the model."""

    seconds_per_response: float
    """seconds to sample one response in a batch, at the length that this model's responses have"""
    seconds_per_trained_response: float
    """seconds for forward and backward pass of one response"""


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
    grpo = config.grpo_config
    steps = num_steps(grpo, counts["train"])
    train_step = speed.seconds_per_response + grpo.updates_per_batch * speed.seconds_per_trained_response
    regenerated = config.regeneration.num_problems * config.regeneration.group_size
    num_pairs = {
        name: min(model.max_pairs, config.regeneration.num_problems * model.pairs_per_problem) * model.epochs
        for name, model in config.trained_reward_models.items()
    }
    return RoundTime(
        {
            **{f"reward model {name}": 2 * n * speed.seconds_per_trained_response for name, n in num_pairs.items()},
            "policy": steps * grpo.batch_size * train_step,
            "evaluate": num_responses(config, counts["dev"] + counts["test"]) * speed.seconds_per_response,
            "regenerate": regenerated * speed.seconds_per_response,
        }
    )


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
    return Speed(seconds / len(completions) * stretch, trained / len(completions) * stretch)


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
