"""Samples responses, for training, evaluation and regeneration alike.

Shared prefixes of prompts are computed once, and so are the tokens that rows of a group have in common so far. Finished
rows leave the batch, and at most `max_rows` responses are decoded together, so memory does not grow with their number.
A row draws by inverse CDF from its own uniforms, seeded by (seed, problem, index), so what it writes does not depend on
the rows beside it, up to rounding. Temperature 0 is greedy decoding, equal to transformers' generate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from configs.errors import StageStopped
from configs.records import Completion, Problem
from configs.seeds import rng_for
from grpo_train.sampling.decoding import Decoder, begun_response
from grpo_train.sampling.early_stop import EarlyStop
from grpo_train.sampling.key_value_cache import fork, sampling_cache
from grpo_train.sampling.packed_weights import packed_weights
from reward_training.transformer.attention import fit_attention
from reward_training.transformer.packing import hidden_size, outputs_of, packed, shares_beginnings
from reward_training.transformer.positions import Positions
from reward_training.transformer.rendering import encode_prompt
from reward_training.transformer.token_logprobs import SLICE, plain_head
from reward_training.transformer.turn_ends import stop_token_ids

BLOCK = 128
"""tokens per block, when the inverse CDF is searched by blocks of the vocabulary first"""
OnGroup = Callable[[int, Problem, list[Completion]], None]
"""called with a problem's index, the problem and its completions"""
COMPACT_SHARE = 0.8
"""empty slots are removed from the KV cache when fewer than this share of all slots is in use"""


@dataclass(frozen=True)
class Sampling:
    """How responses are sampled; top_p and top_k are off by default, temperature 0 is greedy."""

    group_size: int
    temperature: float
    max_response_length: int
    top_p: float = 1.0
    top_k: int = 0
    max_rows: int = 128
    num_greedy: int = 0
    """number of responses per problem, the first ones, that are greedy whatever the temperature"""

    def is_greedy(self, index: int) -> bool:
        """Whether a problem's response `index` is greedy."""
        return self.temperature == 0 or index < self.num_greedy


@dataclass
class _Row:
    """A response that is being generated."""

    problem: int
    index: int
    uniforms: np.ndarray
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: str = "length"
    has_ended: bool = False


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
        StageStopped: `should_stop()` was true between two batches of rows.
    """
    prompts = [encode_prompt(tokenizer, problem) for problem in problems]
    begun = [begun_response(tokenizer, problem.prompt) for problem in problems]
    stop_ids, decode = stop_token_ids(model, tokenizer), Decoder(tokenizer)
    sizes = group_sizes if group_sizes is not None else [sampling.group_size] * len(problems)
    groups = [
        [_Row(i, index, _uniforms(seed, problem, index, sampling.max_response_length)) for index in range(size)]
        for i, (problem, size) in enumerate(zip(problems, sizes, strict=True))
    ]
    completions: list[list[Completion]] = [[] for _ in problems]

    def completed(row: _Row) -> Completion:
        return Completion(
            problem_key=problems[row.problem].key,
            index=row.index,
            prompt_ids=prompts[row.problem],
            token_ids=row.token_ids,
            text=decode(row.token_ids),
            begun=begun[row.problem],
            finish_reason=row.finish_reason,
            logprobs=row.logprobs,
            policy_id=policy_id,
            step=step,
            seed=seed,
        )

    def on_end(ended: list[_Row]) -> None:
        for i in {row.problem for row in ended}:
            if all(row.has_ended for row in groups[i]):
                completions[i] = [completed(row) for row in groups[i]]
                on_group(i, problems[i], completions[i])

    rows = [row for group in groups for row in group]
    with packed_weights(model):
        for batch in _batches(rows, prompts, sampling.max_rows):
            if should_stop():
                raise StageStopped("stopped while sampling")
            _decode(model, batch, prompts, stop_ids, sampling, early_stop, on_end, positions or Positions())
            on_progress(len(batch))
    return [completion for group in completions for completion in group]


def _uniforms(seed: int, problem: Problem, index: int, length: int) -> np.ndarray:
    return rng_for(seed, problem.key, index=index).random(length)


def _batches(rows: list[_Row], prompts: list[list[int]], max_rows: int) -> Iterator[list[_Row]]:
    """Batches of at most `max_rows` rows, sorted by prompt length to keep padding low; groups stay together."""
    ordered = sorted(rows, key=lambda row: (len(prompts[row.problem]), row.problem, row.index))
    for start in range(0, len(ordered), max_rows):
        yield ordered[start : start + max_rows]


@torch.inference_mode()
def _decode(
    model: PreTrainedModel,
    batch: list[_Row],
    prompts: list[list[int]],
    stop_ids: set[int],
    sampling: Sampling,
    early_stop: EarlyStop | None,
    on_end: Callable[[list[_Row]], None],
    positions: Positions,
) -> None:
    """Generate the responses in place. Rows with the same tokens so far share a slot, a row of the model's batch.

    `on_end` gets the rows that have just ended.
    """
    groups: dict[int, list[_Row]] = {}
    for row in batch:
        groups.setdefault(row.problem, []).append(row)
    slots = list(groups.values())
    logits, cache, mask = _prefill(model, [prompts[problem] for problem in groups], positions)
    fit_attention(model, mask.shape[1] + sampling.max_response_length)
    position = mask.sum(dim=1, keepdim=True)
    for step in range(sampling.max_response_length):
        writing = [row for rows in slots for row in rows]
        slot_of = [slot for slot, rows in enumerate(slots) for _ in rows]
        tokens, logprobs = _choose(logits, slot_of, writing, step, sampling)
        going = _write(writing, tokens, logprobs, stop_ids)
        if early_stop is not None:
            going = early_stop.look(writing, going)
        is_last = step + 1 == sampling.max_response_length
        if ended := _ended(writing, [] if is_last else going):
            on_end(ended)
        if is_last or not going:
            return
        slots, next_tokens, copies = _branch(len(slots), [(slot_of[i], tokens[i], writing[i]) for i in going])
        kept = [slot for slot, rows in enumerate(slots) if rows]
        sources = torch.tensor([copies.get(slot, slot) for slot in range(len(slots))], device=model.device)
        if copies:
            fork(cache, copies, sources)
        if len(kept) < COMPACT_SHARE * len(slots):
            cache.batch_select_indices(torch.tensor(kept, device=model.device))
            slots, next_tokens = [slots[slot] for slot in kept], [next_tokens[slot] for slot in kept]
            sources = sources[kept]
        mask, position = mask[sources], position[sources]
        positions.add(len(slots), len(kept))
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        next_ids = torch.tensor(next_tokens, device=model.device).unsqueeze(1)
        output = model(
            input_ids=next_ids, attention_mask=mask, position_ids=position, past_key_values=cache, use_cache=True
        )
        logits, position = output.logits[:, -1], position + 1


def _write(writing: list[_Row], tokens: list[int], logprobs: list[float], stop_ids: set[int]) -> list[int]:
    """Append each row's token; returns the indices of the rows that continue."""
    going = []
    for i, (row, token, logprob) in enumerate(zip(writing, tokens, logprobs, strict=True)):
        row.token_ids.append(token)
        row.logprobs.append(logprob)
        if token in stop_ids:
            row.finish_reason = "stop"
        else:
            going.append(i)
    return going


def _ended(writing: list[_Row], going: list[int]) -> list[_Row]:
    """Mark the rows that do not continue as ended; returns them."""
    goes_on = set(going)
    ended = [row for i, row in enumerate(writing) if i not in goes_on]
    for row in ended:
        row.has_ended = True
    return ended


def _branch(num_slots: int, going: list[tuple[int, int, _Row]]) -> tuple[list[list[_Row]], list[int], dict[int, int]]:
    """Split slots whose rows, given as (slot, token, row), have written different tokens.

    Returns the rows of each slot, the token of each slot, and {slot: slot whose cache it starts as a copy of}. The
    first branch stays in its slot; the others take empty slots, then new ones.
    """
    branches: dict[tuple[int, int], list[_Row]] = {}
    for slot, token, row in going:
        branches.setdefault((slot, token), []).append(row)
    slots: list[list[_Row]] = [[] for _ in range(num_slots)]
    tokens = [0] * num_slots
    others: list[tuple[int, int]] = []
    for slot, token in branches:
        if slots[slot]:
            others.append((slot, token))
        else:
            slots[slot], tokens[slot] = branches[slot, token], token
    free = [slot for slot, rows in enumerate(slots) if not rows]
    free += range(num_slots, num_slots + len(others) - len(free))
    copies: dict[int, int] = {}
    for target, (slot, token) in zip(free, others, strict=False):
        if target == len(slots):
            slots.append([])
            tokens.append(0)
        slots[target], tokens[target], copies[target] = branches[slot, token], token, slot
    return slots, tokens, copies


def _prefill(
    model: PreTrainedModel, prompts: list[list[int]], positions: Positions
) -> tuple[Tensor, DynamicCache, Tensor]:
    """(last logits (P, V), KV cache, mask (P, L)) of P distinct prompts."""
    head, decoder = plain_head(model), model.get_decoder()  # type: ignore[no-untyped-call]
    if head is None or not shares_beginnings(model, decoder):
        return _prefill_padded(model, prompts, positions)
    shared = packed(prompts, width=hidden_size(model), share=True).to(model.device)
    positions.add(shared.num_computed, shared.num_tokens)
    fit_attention(model, shared.input_ids.shape[1])
    computed = DynamicCache(config=model.config)
    states = outputs_of(decoder, shared, model.dtype, past_key_values=computed, use_cache=True).last_hidden_state
    cache = sampling_cache(model)
    layers: list[Any] = computed.layers
    for i, layer in enumerate(layers):
        cache.update(_at(layer.keys, shared.nodes), _at(layer.values, shared.nodes), i)
    mask = torch.arange(shared.nodes.shape[1], device=model.device) < shared.lengths[:, None]
    return states.flatten(0, 1)[shared.last] @ head.T, cache, mask.long()


def _at(states: Tensor, nodes: Tensor) -> Tensor:
    """(B, K, L, D) keys or values of B prompts, gathered from packed rows (R, K, T, D).

    `nodes` (B, L) are indices into R * T.
    """
    gathered = states.transpose(1, 2).flatten(0, 1).index_select(0, nodes.flatten())
    return gathered.view(*nodes.shape, *gathered.shape[1:]).transpose(1, 2)


def _prefill_padded(
    model: PreTrainedModel, prompts: list[list[int]], positions: Positions
) -> tuple[Tensor, DynamicCache, Tensor]:
    """Like `_prefill`, with one left-padded row per prompt, for models that cannot take packed rows."""
    width = max(len(prompt) for prompt in prompts)
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, prompt in enumerate(prompts):
        ids[i, width - len(prompt) :] = torch.tensor(prompt)
        mask[i, width - len(prompt) :] = 1
    positions.add(ids.numel(), int(mask.sum()))
    ids, mask = ids.to(model.device), mask.to(model.device)
    cache = sampling_cache(model)
    output = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return output.logits[:, -1], cache, mask


def _choose(
    logits: Tensor, slot_of: list[int], rows: list[_Row], step: int, sampling: Sampling
) -> tuple[list[int], list[float]]:
    """Next tokens of rows, and their log-probabilities under logits / temperature over the whole vocabulary."""
    uniforms = torch.tensor([[row.uniforms[step]] for row in rows], dtype=torch.float32, device=logits.device)
    greedy = torch.tensor([[sampling.is_greedy(row.index)] for row in rows], device=logits.device)
    slots = torch.tensor(slot_of, device=logits.device)
    # slices that fit into the CPU's cache are three times as fast
    size = SLICE if logits.device.type == "cpu" else len(rows)
    slices = zip(*(torch.split(column, size) for column in (slots, uniforms, greedy)), strict=True)
    parts = [_draw(logits[slot_ids], draws, is_greedy, sampling) for slot_ids, draws, is_greedy in slices]
    tokens, logprobs = (torch.cat(column).squeeze(1) for column in zip(*parts, strict=True))
    return tokens.tolist(), logprobs.tolist()


def _draw(logits: Tensor, uniforms: Tensor, greedy: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """(n, 1) tokens and (n, 1) log-probabilities, which are at temperature 1 where a row is greedy.

    Args:
        logits: (n, V)
        uniforms: (n, 1) in [0, 1)
        greedy: (n, 1) which rows take the likeliest token
    """
    scaled = logits.float() / torch.where(greedy, 1.0, sampling.temperature)
    centred = scaled.sub_(scaled.amax(dim=-1, keepdim=True))
    weights = centred.exp()
    if sampling.top_p < 1 or sampling.top_k > 0:
        tokens = inverse_cdf(filter_logits(centred, sampling.top_p, sampling.top_k).exp(), uniforms)
    else:
        tokens = inverse_cdf(weights, uniforms)
    likeliest = greedy.squeeze(1)
    tokens[likeliest] = centred[likeliest].argmax(dim=-1, keepdim=True)
    return tokens, centred.gather(1, tokens) - weights.sum(dim=-1, keepdim=True).log()


def inverse_cdf(probabilities: Tensor, uniforms: Tensor) -> Tensor:
    """(B, 1) tokens at which the cumulative sum of (B, V) probabilities passes (B, 1) uniforms in [0, 1).

    The probabilities need not be normalised. The search runs over blocks of tokens first, then inside the block it
    finds.
    """
    padded = F.pad(probabilities, (0, -probabilities.shape[1] % BLOCK))
    blocks = padded.view(len(padded), -1, BLOCK)
    cumulated = blocks.sum(dim=-1).cumsum(dim=-1)
    targets = uniforms * cumulated[:, -1:]
    block = _first_over(cumulated, targets)
    block_start = torch.where(block > 0, cumulated.gather(1, (block - 1).clamp(min=0)), 0.0)
    inside = blocks[torch.arange(len(blocks), device=blocks.device), block.squeeze(1)].cumsum(dim=-1)
    return block * BLOCK + _first_over(inside, targets - block_start)


def _first_over(cumulated: Tensor, targets: Tensor) -> Tensor:
    """(B, 1) first index at which (B, N) cumulative sums exceed (B, 1) targets.

    Where rounding leaves none, the last index that added anything.
    """
    last = torch.searchsorted(cumulated, cumulated[:, -1:].contiguous())
    return torch.minimum(torch.searchsorted(cumulated, targets, right=True), last)


def filter_logits(logits: Tensor, top_p: float, top_k: int) -> Tensor:
    """(B, V) logits with -inf outside the `top_k` likeliest tokens and outside the smallest set of mass >= `top_p`."""
    if 0 < top_k < logits.shape[-1]:
        smallest = logits.topk(top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < smallest, -torch.inf)
    if top_p < 1:
        ordered, tokens = logits.sort(dim=-1, descending=True)
        probabilities = ordered.softmax(dim=-1)
        outside = probabilities.cumsum(dim=-1) - probabilities >= top_p
        logits = logits.masked_fill(outside.scatter(1, tokens, outside), -torch.inf)
    return logits
