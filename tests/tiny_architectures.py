"""Builds a small random model of every architecture that transformers has a causal language model of."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

VOCABULARY = 64
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "d_model": 32, "n_embd": 32, "embed_dim": 32, "embedding_size": 32,
    "intermediate_size": 48, "ffn_dim": 48, "ffn_hidden_size": 48, "n_inner": 48, "d_ff": 48, "dim_ff": 48,
    "num_hidden_layers": 4, "n_layer": 4, "n_layers": 4, "num_layers": 4, "decoder_layers": 2, "encoder_layers": 2,
    "num_attention_heads": 4, "n_head": 4, "n_heads": 4, "num_heads": 4, "decoder_attention_heads": 4,
    "encoder_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "moe_intermediate_size": 16,
    "max_position_embeddings": 512, "n_positions": 512, "n_ctx": 512, "max_seq_len": 512, "decoder_ffn_dim": 48, "encoder_ffn_dim": 48,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.2,
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "is_decoder": True,
    "layer_norm_eps": 1e-5, "rms_norm_eps": 1e-5,
}  # fmt: skip


def model_types() -> list[str]:
    return list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def build(model_type: str, overrides: dict[str, Any]) -> PreTrainedModel:
    kind = CONFIG_MAPPING[model_type]
    names = {name for c in kind.__mro__ for name in getattr(c, "__annotations__", {})} | set(
        inspect.signature(kind.__init__).parameters
    )
    names |= set(kind.attribute_map)
    sizes = {name: value for name, value in SIZES.items() if name in names}
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(kind(**(sizes | overrides))).eval()
