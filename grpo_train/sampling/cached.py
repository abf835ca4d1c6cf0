"""Decodes by a cache of keys and values, in which rows of a group that have written the same so far are one.

Prompts are prefilled in rows that share beginnings, or each in a row of its own, padded on the left.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from grpo_train.sampling.key_value_cache import fork, sampling_cache
from grpo_train.sampling.rows import Row
from grpo_train.sampling.writing import Writer
from reward_training.transformer.attention.kernels import fit_attention
from reward_training.transformer.packing import hidden_size, outputs_of, packed
from reward_training.transformer.positions import Positions
from reward_training.transformer.token_logprobs import plain_head
from reward_training.transformer.trial import layout_of

Prefill = Literal["packed", "padded"]
"""packed: prompts share rows where the model's decoder allows it; padded: each has a row of its own"""
COMPACT_SHARE = 0.8
"""empty slots are removed from the KV cache when fewer than this share of all slots is in use"""


@torch.inference_mode()
def decode_cached(
    model: PreTrainedModel, batch: list[Row], prompts: list[list[int]], writer: Writer, prefill: Prefill
) -> None:
    """Generate the responses in place. Rows with the same tokens so far share a slot, a row of the model's batch."""
    groups: dict[int, list[Row]] = {}
    for row in batch:
        groups.setdefault(row.problem, []).append(row)
    slots = list(groups.values())
    max_length = writer.sampling.max_response_length
    logits, cache, mask = _prefill(model, [prompts[problem] for problem in groups], writer.positions, prefill)
    fit_attention(model, mask.shape[1] + max_length)
    position = mask.sum(dim=1, keepdim=True)
    for step in range(max_length):
        writing = [row for rows in slots for row in rows]
        slot_of = [slot for slot, rows in enumerate(slots) for _ in rows]
        tokens, going = writer.write(logits, slot_of, writing, step)
        if not going:
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
        writer.positions.add(len(slots), len(kept))
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        next_ids = torch.tensor(next_tokens, device=model.device).unsqueeze(1)
        output = model(
            input_ids=next_ids, attention_mask=mask, position_ids=position, past_key_values=cache, use_cache=True
        )
        logits, position = output.logits[:, -1], position + 1


def _branch(num_slots: int, going: list[tuple[int, int, Row]]) -> tuple[list[list[Row]], list[int], dict[int, int]]:
    """Split slots whose rows, given as (slot, token, row), have written different tokens.

    Returns the rows of each slot, the token of each slot, and {slot: slot whose cache it starts as a copy of}. The
    first branch stays in its slot; the others take empty slots, then new ones.
    """
    branches: dict[tuple[int, int], list[Row]] = {}
    for slot, token, row in going:
        branches.setdefault((slot, token), []).append(row)
    slots: list[list[Row]] = [[] for _ in range(num_slots)]
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
    model: PreTrainedModel, prompts: list[list[int]], positions: Positions, prefill: Prefill
) -> tuple[Tensor, DynamicCache, Tensor]:
    """(last logits (P, V), KV cache, mask (P, L)) of P distinct prompts."""
    head, decoder = plain_head(model), model.get_decoder()  # type: ignore[no-untyped-call]
    if head is None or prefill == "padded":
        return _prefill_padded(model, prompts, positions)
    shared = packed(prompts, width=hidden_size(model), layout_of=layout_of(model, decoder)).to(model.device)
    if shared.attention_mask is None or shared.attention_mask.dim() == 2:
        return _prefill_padded(model, prompts, positions)
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
    fit_attention(model, width)
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
