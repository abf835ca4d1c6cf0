"""Finds out how a model is sampled, by trial: the log-probabilities of what is written have to be a plain forward's.

Tried in this order: prompts that share rows and a cache of ours, padded prompts and that cache, transformers' generate
with its own cache, and without any. That logits do not depend on later tokens, and have a gradient, is tried first. As with the layout of rows (`reward_training.transformer.trial`), a trial is made in float32 at the length that
is needed, once for all models of equal configuration.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from transformers import LlamaModel, PreTrainedModel

from configs.errors import ConfigError
from configs.seeds import rng_for
from grpo_train.sampling.cached import decode_cached
from grpo_train.sampling.plain import decode_plainly
from grpo_train.sampling.rows import Row, Sampling
from grpo_train.sampling.writing import Writer
from reward_training.transformer.attention.kernels import restore_attention
from reward_training.transformer.packing import states_of
from reward_training.transformer.quiet import FAULTS, quiet_transformers
from reward_training.transformer.token_logprobs import body_of, plain_head
from reward_training.transformer.trial import (
    KERNELS_WITH_MASKS,
    in_float32,
    longest,
    made_up,
    outcomes,
    plain_row,
    trial_length,
)

Way = Literal["packed", "padded", "generate", "recompute"]
"""how responses are sampled: `cached.Prefill`, or by transformers' generate with its own cache or with none"""
WAYS: tuple[Way, ...] = ("packed", "padded", "generate", "recompute")
STEPS = 8
"""tokens that a trial writes"""
ROUNDING = 1e-4
"""largest difference of a token's log-probability that counts as rounding, in standard deviations of the logits"""
OF_GENERATE = 1e-2
"""the same for transformers' generate: some models scan a state in chunks, and step by step to less than rounding"""
SMALLEST = 3e-6
"""difference of two log-probabilities in float32 that is rounding, however alike the logits are"""


def way_of(model: PreTrainedModel, num_tokens: int) -> Way:
    """How prompts and responses of up to `num_tokens` tokens together are sampled.

    Raises:
        ConfigError: in no way, and the reason.
    """
    is_llama = isinstance(model.get_decoder(), LlamaModel)  # type: ignore[no-untyped-call]
    if is_llama or model.config._attn_implementation not in KERNELS_WITH_MASKS:
        return "packed"
    found = outcomes(model)
    length = trial_length(num_tokens)
    if ("way", length) not in found:
        with in_float32(model), quiet_transformers():
            found["way", length] = _tried(model, length)
    way: Way | ConfigError = found["way", length]
    if isinstance(way, ConfigError):
        raise way
    return way


def _tried(model: PreTrainedModel, length: int) -> Way | ConfigError:
    reason = "a token's logits depend on later tokens"
    try:
        if not _is_causal(model):
            return _refusal(model, reason)
        _differentiate(model)
    except torch.OutOfMemoryError:
        raise
    except FAULTS as error:
        return _refusal(model, f"a forward and backward pass raise {type(error).__name__}: {error}")
    for way in WAYS:
        try:
            if _agrees(model, length, way):
                return way
            reason = f"by {way} its log-probabilities are not those of a plain forward"
        except torch.OutOfMemoryError:
            raise
        except FAULTS as error:
            reason = f"by {way} it raises {type(error).__name__}: {error}"
    return _refusal(model, reason)


def _refusal(model: PreTrainedModel, reason: str) -> ConfigError:
    return ConfigError(
        f"policy.path holds a model of type {model.config.model_type!r}, which cannot be sampled: {reason}; "
        "take one that docs/models.md lists"
    )


@torch.no_grad()
def _is_causal(model: PreTrainedModel) -> bool:
    """Whether tokens get the same logits whatever comes later."""
    ids = made_up(model, 47)
    whole, half = plain_logits(model, ids)[:23], plain_logits(model, ids[:23])
    return bool(((whole - half).abs() <= SMALLEST + ROUNDING * half.std(dim=1, keepdim=True)).all())


def _differentiate(model: PreTrainedModel) -> None:
    """Run a backward pass down to the token embeddings; nothing is kept of it."""
    embedded: list[Tensor] = []
    hook = model.get_input_embeddings().register_forward_hook(lambda *call: embedded.append(call[-1]))
    try:
        with torch.enable_grad():
            logits = plain_logits(model, made_up(model, 23))
            if logits.requires_grad and embedded[0].requires_grad:  # not so of a frozen model, or in an adapter's base
                torch.autograd.grad(logits.sum(), embedded[0], allow_unused=True)
    finally:
        hook.remove()


def _agrees(model: PreTrainedModel, length: int, way: Way) -> bool:
    """Whether the last row of each of two prompts gets the log-probabilities of a plain forward."""
    end = min(length, longest(model)) - STEPS
    first = made_up(model, end)
    prompts = [first, first[: end // 4] + made_up(model, end // 4 - 1, seed=1)]
    groups = [[_row(problem, index) for index in range(3)] for problem in range(len(prompts))]
    writer = Writer(Sampling(group_size=3, temperature=1.0, max_response_length=STEPS))
    if way == "packed" or way == "padded":
        decode_cached(model, [row for group in groups for row in group], prompts, writer, way)
    else:
        for group in groups:
            decode_plainly(model, group, prompts, writer, use_cache=way == "generate")
    rounding = OF_GENERATE if way == "generate" else ROUNDING
    return all(_is_alike(model, prompts[group[-1].problem], group[-1], rounding) for group in groups)


def _row(problem: int, index: int) -> Row:
    return Row(problem, index, rng_for(0, "trial", step=problem, index=index).random(STEPS))


@torch.no_grad()
def _is_alike(model: PreTrainedModel, prompt: list[int], row: Row, rounding: float) -> bool:
    """Whether the log-probabilities in a row are those of a plain forward, up to rounding."""
    logits = plain_logits(model, [*prompt, *row.token_ids])[len(prompt) - 1 : -1]
    chosen = torch.tensor(row.token_ids, device=logits.device)
    expected = logits.log_softmax(dim=1).gather(1, chosen[:, None]).squeeze(1)
    found = torch.tensor(row.logprobs, device=logits.device)
    return bool(((found - expected).abs() <= SMALLEST + rounding * logits.std(dim=1)).all())


def plain_logits(model: PreTrainedModel, ids: list[int]) -> Tensor:
    """(T, V) logits of one sequence, by a plain forward."""
    restore_attention(model)
    head = plain_head(model)
    states = states_of(body_of(model), plain_row(ids, model.device), torch.float32)[: len(ids)]
    return states if head is None else states @ head.T
