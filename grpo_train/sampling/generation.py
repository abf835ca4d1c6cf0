"""Samples responses, for training, evaluation and regeneration alike.

Shared prefixes of prompts are computed once, and so are the tokens that rows of a group have in common so far. Finished
rows leave the batch, and at most `max_rows` responses are decoded together, so memory does not grow with their number.
Models that this does not suit are sampled by transformers' generate, with the same draws (`trial`).
A row draws by inverse CDF from its own uniforms, seeded by (seed, problem, index), so what it writes does not depend on
the rows beside it, up to rounding. Temperature 0 is greedy decoding, equal to transformers' generate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from configs.errors import StageStopped
from configs.records import Completion, Problem
from configs.seeds import rng_for
from grpo_train.sampling.asked import Asked, OnGroup
from grpo_train.sampling.cached import decode_cached
from grpo_train.sampling.early_stop import EarlyStop
from grpo_train.sampling.fused_decoder import fused_decoder
from grpo_train.sampling.packed_weights import packed_weights
from grpo_train.sampling.plain import decode_plainly
from grpo_train.sampling.rows import Row, Sampling
from grpo_train.sampling.trial import Way, way_of
from grpo_train.sampling.writing import Writer
from reward_training.transformer.positions import Positions
from reward_training.transformer.turn_ends import stop_token_ids

__all__ = ["OnGroup", "Sampling", "sample"]


def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    sampling: Sampling,
    *,
    seed: int,
    policy_id: str,
    step: int = 0,
    group_sizes: Sequence[int] | None = None,
    early_stop: EarlyStop | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[int], None] = lambda num_rows: None,
    on_group: OnGroup = lambda i, problem, completions: None,
    positions: Positions | None = None,
) -> list[Completion]:
    """Sample `group_size` completions of each problem; returned group by group in the order of `problems`.

    `group_sizes` sets the number per problem instead; a row writes the same whatever the size of its group.
    `early_stop` may abort responses after any token. `on_progress` gets the number of rows that have just finished,
    `on_group` a problem's completions as soon as the last of them has ended. `positions` counts the token positions
    that the forward passes compute.

    Raises:
        ConfigError: the model cannot be sampled.
        StageStopped: `should_stop()` was true between two batches of rows.
    """
    asked = Asked(tokenizer, problems, sampling, policy_id=policy_id, step=step, seed=seed)
    prompts, stop_ids = asked.prompts, stop_token_ids(model, tokenizer)
    sizes = group_sizes if group_sizes is not None else [sampling.group_size] * len(problems)
    groups = [
        [Row(i, index, _uniforms(seed, problem, index, sampling.max_response_length)) for index in range(size)]
        for i, (problem, size) in enumerate(zip(problems, sizes, strict=True))
    ]
    completions: list[list[Completion]] = [[] for _ in problems]

    def completed(row: Row) -> Completion:
        return asked.completion(row.problem, row.index, row.token_ids, row.logprobs, row.finish_reason)

    def on_end(ended: list[Row]) -> None:
        for i in {row.problem for row in ended}:
            if all(row.has_ended for row in groups[i]):
                completions[i] = [completed(row) for row in groups[i]]
                on_group(i, problems[i], completions[i])

    rows = [row for group in groups for row in group]
    if not rows:
        return []
    writer = Writer(sampling, stop_ids, early_stop, on_end, positions or Positions())
    way = way_of(model, max(len(prompt) for prompt in prompts) + sampling.max_response_length)
    with fused_decoder(model) as is_fused, packed_weights(model, head_only=is_fused):
        for batch in _batches(rows, prompts, sampling.max_rows, way):
            if should_stop():
                raise StageStopped("stopped while sampling")
            if way == "packed" or way == "padded":
                decode_cached(model, batch, prompts, writer, way)
            else:
                decode_plainly(model, batch, prompts, writer, use_cache=way == "generate")
            on_progress(len(batch))
    return [completion for group in completions for completion in group]


def _uniforms(seed: int, problem: Problem, index: int, length: int) -> np.ndarray:
    return rng_for(seed, problem.key, index=index).random(length)


def _batches(rows: list[Row], prompts: list[list[int]], max_rows: int, way: Way) -> Iterator[list[Row]]:
    """Batches of at most `max_rows` rows, sorted by prompt length to keep padding low; groups stay together.

    transformers' generate gets prompts of equal length, since not every model can take padding.
    """

    def num_tokens(row: Row) -> int:
        return len(prompts[row.problem])

    ordered = sorted(rows, key=lambda row: (num_tokens(row), row.problem, row.index))
    by_length = way in ("generate", "recompute")
    parts = [list(part) for _, part in groupby(ordered, num_tokens)] if by_length else [ordered]
    for part in parts:
        for start in range(0, len(part), max_rows):
            yield part[start : start + max_rows]
