"""How many tokens a model's positions allow."""

import pytest
from transformers import (
    BloomConfig,
    GPT2Config,
    Lfm2Config,
    LlamaConfig,
    MambaConfig,
    MptConfig,
    Phi3Config,
    PreTrainedConfig,
)

from reward_training.transformer.limits import position_limit

LONG = {
    "rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [4.0] * 8, "rope_theta": 1e4,
    "original_max_position_embeddings": 96,
}  # fmt: skip


def rope(kind: str, **settings: float) -> LlamaConfig:
    return LlamaConfig(max_position_embeddings=512, rope_parameters={"rope_type": kind, "rope_theta": 1e4, **settings})


@pytest.mark.parametrize(
    ("config", "num_tokens", "field"),
    [
        (GPT2Config(n_positions=70), 70, "max_position_embeddings"),
        (MptConfig(max_seq_len=80), 80, "max_seq_len"),
        (LlamaConfig(max_position_embeddings=90), 90, "max_position_embeddings"),
        (Lfm2Config(max_position_embeddings=100), 100, "max_position_embeddings"),
        (rope("linear", factor=4.0), 2048, "max_position_embeddings"),
        (rope("yarn", factor=3.0, original_max_position_embeddings=512), 1536, "max_position_embeddings"),
        (rope("dynamic", factor=4.0), 512, "original_max_position_embeddings"),
        (
            Phi3Config(
                hidden_size=64, num_attention_heads=4, max_position_embeddings=384,
                original_max_position_embeddings=96, rope_parameters=LONG,
            ),
            96,
            "original_max_position_embeddings",
        ),
    ],
    ids=["gpt2", "mpt", "llama", "lfm2", "linear", "yarn", "dynamic", "longrope"],
)  # fmt: skip
def test_the_limit_is_what_the_configuration_says(config: PreTrainedConfig, num_tokens: int, field: str) -> None:
    limit = position_limit(config)
    assert limit is not None
    assert (limit.num_tokens, limit.field) == (num_tokens, field)


@pytest.mark.parametrize("config", [MambaConfig(), BloomConfig()])
def test_states_and_slopes_have_no_limit(config: PreTrainedConfig) -> None:
    assert position_limit(config) is None
