"""Finds out how the rows of a model may be laid out, by trial: a layout has to compute what a plain forward computes.

What a layout gets wrong may show at some length only: a window of attention, or a slope that grows with the distance of
two columns. So a trial is made for each length that is used, rounded up to a power of two, before the first rows of
that length; it is made in float32, where a difference beyond rounding is an error. It is made once for all models of
equal configuration, and its outcome depends on configuration and length alone. Llama's decoder takes places from mask
and position ids only, and is not tried.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import LlamaModel, PreTrainedModel

from reward_training.transformer.attention.kernels import fit_attention, restore_attention
from reward_training.transformer.limits import position_limit
from reward_training.transformer.packing import Layout, LayoutOf, Packed, _filled, states_of
from reward_training.transformer.quiet import FAULTS, quiet_transformers
from reward_training.transformer.sharding import is_sharded

ROUNDING = 5e-5
"""largest relative difference of a token's hidden state, in float32, that counts as rounding; a window that hides 12
tokens of 500 made 1e-2, thirty layers 2e-6"""
STAND_IN_TOKENS = 1024
SHORTEST = 64
"""tokens of the shortest trial"""
KERNELS_WITH_MASKS = ("grouped", "blocked", "eager", "sdpa")


def layout_of(model: PreTrainedModel, body: nn.Module) -> LayoutOf:
    """How rows of up to so many tokens of `body`, the model or its decoder, may be laid out."""
    return partial(_layout, model, body)


def _layout(model: PreTrainedModel, body: nn.Module, num_tokens: int) -> Layout:
    may_share = _may_share(model)
    if may_share and isinstance(body, LlamaModel):
        return "shared"
    if model.config._attn_implementation not in KERNELS_WITH_MASKS:  # flash attention knows neither masks nor float32
        return "own"
    found = outcomes(model)
    length = trial_length(num_tokens)
    key = (type(body).__name__, may_share, length)
    if key not in found:
        found[key] = (_tried_on_stand_in if is_sharded(model) else _tried)(model, body, length, may_share=may_share)
    layout: Layout = found[key]
    return layout


def trial_length(num_tokens: int) -> int:
    """The length that is tried for rows of up to `num_tokens` tokens.

    >>> [trial_length(num_tokens) for num_tokens in (1, 64, 65, 300)]
    [64, 64, 128, 512]
    """
    return max(SHORTEST, 1 << (num_tokens - 1).bit_length())


# ---- what is known ---------------------------------------------------------------------------------------------------

_BY_MODEL: WeakKeyDictionary[nn.Module, dict[Any, Any]] = WeakKeyDictionary()
_BY_CONFIGURATION: dict[str, dict[Any, Any]] = {}


def outcomes(model: PreTrainedModel) -> dict[Any, Any]:
    """The outcomes of all trials so far of models of this configuration, on the same kind of device."""
    if model not in _BY_MODEL:
        name = f"{type(model).__name__} {model.device.type} {model.config.to_json_string(use_diff=False)}"
        _BY_MODEL[model] = _BY_CONFIGURATION.setdefault(name, {})
    return _BY_MODEL[model]


def stand_in(model: PreTrainedModel, body: nn.Module) -> tuple[PreTrainedModel, nn.Module]:
    """A whole float32 model, and its body, for the trials of a sharded one, whose ranks cannot try by themselves: of the same
    kind, with one layer or two of each kind, few tokens, and random weights."""
    config = copy.deepcopy(model.config)
    text = config.get_text_config()
    kinds, num_layers = list(getattr(text, "layer_types", None) or []), text.num_hidden_layers
    text.num_hidden_layers = min(num_layers, max([2, *(kinds.index(kind) + 1 for kind in set(kinds))]))
    for name, value in list(vars(text).items()):
        if isinstance(value, list) and len(value) == num_layers:  # one for each layer
            setattr(text, name, value[: text.num_hidden_layers])
    text.vocab_size = min(text.vocab_size, STAND_IN_TOKENS)
    if (text.pad_token_id or 0) >= text.vocab_size:
        text.pad_token_id = None
    with torch.random.fork_rng(), torch.device(model.device):
        torch.manual_seed(0)
        made = type(model)._from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    name = next(name for name, module in model.named_modules() if module is body)
    return made, made.get_submodule(name)


def _may_share(model: PreTrainedModel) -> bool:
    """Whether the configuration names neither windows nor other layers than full attention, and the kernel has masks."""
    config = model.config.get_text_config()
    layers = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    has_mask = model.config._attn_implementation in KERNELS_WITH_MASKS
    return layers == {"full_attention"} and window is None and has_mask


# ---- the trial -------------------------------------------------------------------------------------------------------


def _tried(model: PreTrainedModel, body: nn.Module, length: int, *, may_share: bool) -> Layout:
    with in_float32(model), torch.no_grad(), quiet_transformers():
        if may_share and _agrees(model, body, *_tree(model, length), layout="shared"):
            return "shared"
        sequences = [made_up(model, min(length, longest(model))), made_up(model, 3, seed=1)]
        return "own" if _agrees(model, body, sequences, [[0], [1]], layout="own") else "plain"


def _tried_on_stand_in(model: PreTrainedModel, body: nn.Module, length: int, *, may_share: bool) -> Layout:
    """The layout of a sharded model. Of an architecture that cannot be made small rows are plain, which is never wrong."""
    try:
        tried, its_body = stand_in(model, body)
    except torch.OutOfMemoryError:
        raise
    except FAULTS:
        return "plain"
    return _tried(tried, its_body, length, may_share=may_share)


def _agrees(
    model: PreTrainedModel, body: nn.Module, sequences: list[list[int]], rows: list[list[int]], *, layout: Layout
) -> bool:
    """Whether the first and the last sequence get the hidden states that they get alone, in each of their tokens."""
    batch = _filled(sequences, rows, layout).to(model.device)
    fit_attention(model, batch.input_ids.shape[1], batch.attention_mask)
    try:
        found = states_of(body, batch, torch.float32)
    except torch.OutOfMemoryError:
        raise
    except FAULTS:  # it accepts no such mask, or no position ids
        return False
    restore_attention(model)
    for i in (0, len(sequences) - 1):
        alone = states_of(body, plain_row(sequences[i], model.device), torch.float32)
        if not is_alike(found[batch.nodes[i, : len(sequences[i])]], alone[: len(sequences[i])]):
            return False
    return True


def is_alike(found: Tensor, expected: Tensor) -> bool:
    """Whether (T, H) hidden states are equal up to rounding in each of their tokens."""
    difference = (found - expected).norm(dim=-1)
    return bool((difference <= ROUNDING * expected.norm(dim=-1)).all())


def plain_row(ids: list[int], device: torch.device) -> Packed:
    """A batch of one sequence in the plain layout."""
    return _filled([ids], [[0]], "plain").to(device)


def _tree(model: PreTrainedModel, length: int) -> tuple[list[list[int]], list[list[int]]]:
    """Sequences that share their beginning, and fill one row of `length` tokens.

    The first is as long as the row and the model's positions allow, and the last has its own tokens at the row's end.
    """
    own = length // 8
    first = made_up(model, min(length - own, longest(model)))
    beginning = first[: len(first) // 2]
    sequences, num_left = [first], length - len(first)
    while num_left > 0:
        num_new = min(num_left, max(own, len(first) - len(beginning)))
        sequences.append(beginning + made_up(model, num_new, seed=len(sequences)))
        num_left -= num_new
    return sequences, [list(range(len(sequences)))]


def longest(model: PreTrainedModel) -> int:
    """The most tokens of a made-up sequence: what the model's positions allow."""
    limit = position_limit(model.config)
    return limit.num_tokens if limit is not None else 1 << 30


def made_up(model: PreTrainedModel, num_tokens: int, seed: int = 0) -> list[int]:
    """Token ids without the pad token, the same for equal seeds."""
    embeddings: Any = model.get_input_embeddings()
    pad = getattr(model.config.get_text_config(), "pad_token_id", None)
    vocabulary = [token for token in range(min(embeddings.weight.shape[0], 1000)) if token != pad]
    generator = torch.Generator().manual_seed(seed)
    return [vocabulary[i] for i in torch.randint(len(vocabulary), (num_tokens,), generator=generator).tolist()]


@contextmanager
def in_float32(model: nn.Module) -> Iterator[None]:
    """Inside this context the model is in evaluation mode, its numbers are float32, and it multiplies by its own weights.

    Neither autocast nor packed copies of the weights are in use.
    """
    tensors = [tensor for tensor in (*model.parameters(), *model.buffers()) if tensor.is_floating_point()]
    low = [(tensor, tensor.data) for tensor in tensors if tensor.dtype != torch.float32]
    modes = {module: module.training for module in model.modules()}
    linear = [module for module in model.modules() if type(module) is nn.Linear]
    replaced = {module: module.__dict__.pop("forward") for module in linear if "forward" in module.__dict__}
    device = next(model.parameters()).device.type
    try:
        model.eval()
        with torch.inference_mode(False), torch.autocast(device, enabled=False):
            for tensor, data in low:
                tensor.data = data.float()
            yield
    finally:
        for tensor, data in low:
            tensor.data = data
        for module, mode in modes.items():
            module.training = mode
        for module, forward in replaced.items():
            module.__dict__["forward"] = forward
