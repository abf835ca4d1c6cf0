"""Chooses a model's attention kernel, and adds two for a CPU: for short rows, and for long ones with many sequences."""

from __future__ import annotations

import inspect
import sys
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, eager_mask, sdpa_mask
from transformers.modeling_utils import AttentionInterface
from transformers.models.llama import modeling_llama

from reward_training.transformer.attention.key_blocks import KeyBlocks

PLAIN_UNTIL = 256
"""longest row, in tokens, for which plain matrix products are faster on a CPU than torch's fused kernel: a decoding
step of 128 rows took 152 ms against 238 ms, an update on 32 responses of 64 tokens 4.7 s against 5.4 s"""
WHOLE_UNTIL = 400
"""longest row of a prefix tree whose attention is computed whole in float32; the rows of configs/tiny.yaml are shorter, and there
is little to save: 14 against 7 ms a layer at 448 tokens. In bfloat16 rows over PLAIN_UNTIL are computed by blocks: 14 against 8"""
GROUPED, BLOCKED = "grouped", "blocked"


def fit_attention(model: PreTrainedModel, num_tokens: int, mask: Tensor | None = None) -> None:
    """Set the attention kernel for rows of up to `num_tokens`: plain products if short and on a CPU, else the fused
    one; in long rows of a prefix tree, block by block.

    A model that was loaded with a different kernel (flash attention) keeps it. `mask` is that of packed rows, where the model runs
    on such: with four dimensions it is a prefix tree's.

    On a GPU, cuDNN's kernel is switched off: it compiles a plan for every new shape, and here nearly every call has a
    new shape, because rows leave the batch and responses grow.
    """
    if model.device.type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)
    if model.device.type != "cpu" or model.config._attn_implementation not in (GROUPED, BLOCKED, "eager", "sdpa"):
        return
    is_plain = model._supports_attention_backend and _multiplies_like_llama(type(model).__module__)
    plain = GROUPED if is_plain else "eager"
    whole_until = WHOLE_UNTIL if model.dtype == torch.float32 else PLAIN_UNTIL
    in_blocks = mask is not None and mask.dim() == 4 and num_tokens > whole_until
    fused = BLOCKED if is_plain and in_blocks else "sdpa"
    wanted = plain if num_tokens <= PLAIN_UNTIL or not model._supports_sdpa else fused
    if model.config._attn_implementation != wanted:
        _LOADED_WITH.setdefault(model, model.config._attn_implementation)
        model.set_attn_implementation(wanted)


_LOADED_WITH: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


def restore_attention(model: PreTrainedModel) -> None:
    """Set the attention kernel that the model was loaded with."""
    kernel = _LOADED_WITH.get(model)
    if kernel is not None and model.config._attn_implementation != kernel:
        model.set_attn_implementation(kernel)


def grouped_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """(B, T, H, E) attention of (B, H, T, D) queries to (B, K, S, D) keys and (B, K, S, E) values, by plain products.

    The H / K query heads that share a key head (grouped-query attention, arXiv 2305.13245) are stacked as rows of one
    product, so that keys and values are not copied for each of them.
    """
    batch, num_heads, length, head_dim = query.shape
    num_key_heads = key.shape[1]
    rows = (query * scaling).reshape(batch, num_key_heads, -1, head_dim)
    weights = (rows @ key.transpose(2, 3)).view(batch, num_key_heads, num_heads // num_key_heads, length, -1)
    if attention_mask is not None:
        weights = weights + attention_mask.unsqueeze(2)
    wide = torch.promote_types(query.dtype, torch.float32)
    weights = weights.softmax(dim=-1, dtype=wide).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    attended = (weights.flatten(2, 3) @ value).view(batch, num_heads, length, -1)
    return attended.transpose(1, 2).contiguous(), None


def blocked_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    key_blocks: KeyBlocks | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """`grouped_attention` in float32, of each block of queries to its own keys; without `key_blocks` torch's fused kernel on
    whole rows.

    The fused kernel's gradient is slow in bfloat16: 25 ms a layer where this takes 7, in a row of 832 tokens. In bfloat16 plain
    products round the scores, and are no faster.
    """
    if key_blocks is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **others)
    dtype = torch.promote_types(query.dtype, torch.float32)
    queries = key_blocks.queries(query).to(dtype)
    keys, values = key_blocks.gathered(key).to(dtype), key_blocks.gathered(value).to(dtype)
    attended, _ = grouped_attention(module, queries, keys, values, key_blocks.bias, scaling, dropout)
    return key_blocks.joined(attended, query.shape[2]).to(query.dtype), None


AttentionInterface.register(GROUPED, grouped_attention)
AttentionMaskInterface.register(GROUPED, eager_mask)
AttentionInterface.register(BLOCKED, blocked_attention)
AttentionMaskInterface.register(BLOCKED, sdpa_mask)


@cache
def _multiplies_like_llama(module: str) -> bool:
    """Whether a modeling module's eager attention is Llama's: no soft cap, no attention sinks, no position bias."""
    attention = getattr(sys.modules[module], "eager_attention_forward", None)
    return attention is not None and inspect.getsource(attention) == inspect.getsource(
        modeling_llama.eager_attention_forward
    )
