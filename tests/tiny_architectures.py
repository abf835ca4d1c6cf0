"""Builds a small random model of every architecture that transformers has a causal language model of."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from grpo_train.policies.tiny_model import build_tiny_tokenizer

TOKENIZER = build_tiny_tokenizer()
SIZES: dict[str, Any] = {
    "vocab_size": len(TOKENIZER), "hidden_size": 32, "d_model": 32, "n_embd": 32, "embed_dim": 32, "embedding_size": 32,
    "intermediate_size": 48, "ffn_dim": 48, "ffn_hidden_size": 48, "n_inner": 48, "d_ff": 48, "dim_ff": 48,
    "num_hidden_layers": 4, "n_layer": 4, "n_layers": 4, "num_layers": 4, "decoder_layers": 2, "encoder_layers": 2,
    "num_attention_heads": 4, "n_head": 4, "n_heads": 4, "num_heads": 4, "decoder_attention_heads": 4,
    "encoder_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "moe_intermediate_size": 16,
    "max_position_embeddings": 512, "n_positions": 512, "n_ctx": 512, "max_seq_len": 512, "decoder_ffn_dim": 48,
    "encoder_ffn_dim": 48, "pad_token_id": TOKENIZER.pad_token_id, "bos_token_id": TOKENIZER.bos_token_id,
    "eos_token_id": TOKENIZER.eos_token_id, "initializer_range": 0.2, "sliding_window": 16, "attention_chunk_size": 16,
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "is_decoder": True,
    "layer_norm_eps": 1e-5, "rms_norm_eps": 1e-5, "shared_expert_intermediate_size": 16,
}  # fmt: skip
MLA = {
    "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
    "v_head_dim": 12, "head_dim": 8,
}  # fmt: skip
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 16}
DELTA = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
}  # fmt: skip
HYBRID = ["linear_attention", "full_attention"] * 2
OVERRIDES: dict[str, dict[str, Any]] = {
    "glm4_moe_lite": MLA,
    "youtu": MLA,
    **{name: MLA | {"n_group": 1, "topk_group": 1} for name in ("axk1", "axk2", "deepseek_v2", "deepseek_v3")},
    **{name: MLA | {"index_topk": 64, "index_head_dim": 16, "index_n_heads": 2, "n_group": 1, "topk_group": 1,
                    "head_dim": 16} for name in ("deepseek_v32", "glm_moe_dsa")},
    "bailing_hybrid": MLA | {"layer_types": HYBRID, "n_group": 1, "topk_group": 1, "num_local_experts": 4},
    "bamba": MAMBA | {"attn_layer_indices": [1, 3]},
    "hy_v4": MLA | {"index_topk": 256, "index_head_dim": 16, "index_n_heads": 2, "n_group": 1, "topk_group": 1,
                    "head_dim": 16},  # a forward over more than index_topk tokens is not what its generate computes
    "inkling_text": {"swa_num_attention_heads": 4, "swa_num_key_value_heads": 2, "swa_head_dim": 8, "d_rel": 4,
                     "rel_extent": 32, "sliding_window_size": 16, "n_shared_experts": 1},
    "inkling2_text": {"swa_num_attention_heads": 4, "swa_num_key_value_heads": 2, "swa_head_dim": 8, "d_rel": 4,
                      "rel_extent": 32, "sliding_window_size": 16, "n_shared_experts": 1},
    "deepseek_v4": {"num_key_value_heads": 1, "head_dim": 16, "q_lora_rank": 16, "o_groups": 2, "o_lora_rank": 8,
                    "index_n_heads": 2, "index_head_dim": 16, "index_topk": 256, "hc_mult": 2},
    "beam": {"n_group": 1, "topk_group": 1},
    "big_bird": {"attention_type": "original_full"},
    "bigbird_pegasus": {"attention_type": "original_full"},
    "codegen": {"rotary_dim": 8},
    "cpmant": {"prompt_types": 8, "prompt_length": 8, "segment_types": 8},
    "ctrl": {"dff": 48},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8}, "ffn_config": {"hidden_size": 32, "ffn_hidden_size": 48}},
    "dots1": {"n_shared_experts": 1},
    "falcon_h1": MAMBA | {"mamba_d_ssm": 64},
    "gemma3n_text": {"num_kv_shared_layers": 1, "vocab_size_per_layer_input": len(TOKENIZER),
                     "hidden_size_per_layer_input": 8, "layer_types": ["sliding_attention", "full_attention"] * 2,
                     "laurel_rank": 8},
    "gemma4_text": {"vocab_size_per_layer_input": len(TOKENIZER), "hidden_size_per_layer_input": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "window_size": 16},
    "gptj": {"rotary_dim": 8},
    "granitemoehybrid": MAMBA | {"layer_types": ["mamba", "attention"] * 2, "shared_intermediate_size": 16},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 8, "mamba_dt_rank": 4},
    "kimi_linear": MLA | {"layer_types": HYBRID, "linear_head_dim": 8, "linear_num_heads": 4, "num_local_experts": 4,
                          "n_group": 1, "topk_group": 1},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2, "num_dense_layers": 1},
    "longcat_flash": MLA | {"num_layers": 2, "expert_ffn_hidden_size": 16, "zero_expert_num": 2, "moe_topk": 2},
    "mamba": {"state_size": 8},
    "falcon_mamba": {"state_size": 8},
    "mamba2": {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 1, "chunk_size": 16},
    "minicpm3": MLA | {"v_head_dim": 16},
    "minimax": {"layer_types": HYBRID, "block_size": 16},
    "nemotron_h": {"layers_block_type": ["mamba", "attention", "mlp", "mamba"], "mamba_num_heads": 4,
                   "mamba_head_dim": 16, "ssm_state_size": 8, "n_groups": 1, "chunk_size": 16},
    **{name: DELTA | {"layer_types": HYBRID} for name in (
        "qwen3_next", "qwen3_5_text", "qwen3_5_moe_text", "olmo_hybrid",
    )},
    "recurrent_gemma": {"block_types": ["recurrent", "attention"], "attention_window_size": 16, "lru_width": 32},
    "reformer": {"axial_pos_embds": False, "attention_head_size": 8, "num_buckets": 2, "feed_forward_size": 48},
    "roc_bert": {"shape_vocab_size": len(TOKENIZER), "pronunciation_vocab_size": len(TOKENIZER)},
    "rwkv": {"attention_hidden_size": 32, "num_hidden_layers": 2},
    "xlm": {"emb_dim": 32, "causal": True},
    "xlstm": {"qk_dim_factor": 1.0, "num_heads": 4, "chunk_size": 16},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"layers_block_type": ["mamba", "hybrid"] * 2, "num_key_value_heads": 4, "mamba_d_state": 8,
              "attention_head_dim": 16, "mamba_dt_rank": 4},
    "zamba2": {"layers_block_type": ["mamba", "hybrid"] * 2, "num_key_value_heads": 4, "mamba_d_state": 8,
               "n_mamba_heads": 4, "adapter_rank": 8, "chunk_size": 16},
    "zaya": {"num_experts_per_tok": 1, "router_hidden_size": 16},
}  # fmt: skip


COMPOSITE = {
    "emu3": "emu3_text_model", "fuyu": "persimmon", "gemma3": "gemma3_text", "gemma4": "gemma4_text",
    "llama4": "llama4_text", "mllama": "mllama_text_model", "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
}  # fmt: skip
"""models of text and pictures, with the type of the part that reads text"""
VISION = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
    "patch_size": 14, "depth": 1, "num_heads": 2, "out_hidden_size": 32,
}  # fmt: skip
OTHER_THINGS = "reads or writes other things than text"
NOT_TRIED = {
    "blt": "five models in one, over bytes", "cohere_compass_text": "its configuration has no default layers",
    "dots3_note": OTHER_THINGS, "dots3_note_text": "no small one can be made: its layers have sizes without a name",
    "gemma3n": "needs timm", "gemma4_assistant": "drafts for another model",
    "gemma4_unified": OTHER_THINGS, "gemma4_unified_assistant": "drafts for another model", "git": OTHER_THINGS,
    "got_ocr2": OTHER_THINGS, "moshi": OTHER_THINGS, "moss_transcribe_diarize": OTHER_THINGS,
    "musicgen": OTHER_THINGS, "musicgen_melody": OTHER_THINGS, "phi4_multimodal": OTHER_THINGS,
    "qwen4_exp": OTHER_THINGS, "qwen4_exp_text": "its configuration has no default indexer",
    "whisper": OTHER_THINGS,
}  # fmt: skip


def model_types() -> list[str]:
    """Every architecture of which a small model can be built."""
    return [name for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if name not in NOT_TRIED]


def build(model_type: str, **changes: Any) -> PreTrainedModel:
    """A small random model, in evaluation mode, that knows the tokens of TOKENIZER."""
    kind = CONFIG_MAPPING[model_type]
    if model_type in COMPOSITE:
        text = COMPOSITE[model_type]
        parts: dict[str, Any] = {"text_config": _sizes(text) | changes | {"model_type": text}}
        config = kind(**parts, **({"vision_config": VISION} if "vision_config" in kind.sub_configs else {}))
    else:
        config = kind(**(_sizes(model_type) | changes))
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    if model.generation_config is not None:
        model.generation_config = GenerationConfig(eos_token_id=TOKENIZER.eos_token_id)
    return model


def _sizes(model_type: str) -> dict[str, Any]:
    kind = CONFIG_MAPPING[model_type]
    names = {name for parent in kind.__mro__ for name in getattr(parent, "__annotations__", {})}
    names |= set(inspect.signature(kind.__init__).parameters) | set(kind.attribute_map)
    return {name: value for name, value in SIZES.items() if name in names} | OVERRIDES.get(model_type, {})
