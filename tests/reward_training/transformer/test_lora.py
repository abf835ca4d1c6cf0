import pytest
from peft import LoraModel
from transformers import FalconH1Config, LlamaConfig, MambaConfig, PreTrainedConfig

from configs.errors import ConfigError
from configs.schema.lora import LoraSettings
from reward_training.reward_models.heads import causal_class, classifier_class
from reward_training.transformer.lora import lora_config, try_lora

LLAMA = LlamaConfig(vocab_size=16, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
MAMBA = MambaConfig(vocab_size=16, hidden_size=16, num_hidden_layers=1, state_size=4)
FALCON_H1 = FalconH1Config(
    vocab_size=16, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
    mamba_d_ssm=16, mamba_n_heads=2, mamba_d_head=8, mamba_d_state=4, mamba_n_groups=1,
)  # fmt: skip
RANK_4 = LoraSettings(rank=4)


@pytest.mark.parametrize("config", [LLAMA, MAMBA, FALCON_H1], ids=lambda config: config.model_type)
def test_all_linear_fits_every_architecture(config: PreTrainedConfig) -> None:
    """PEFT refuses out_proj of state-space layers: a run ended after its first round of evaluation and samples."""
    try_lora(causal_class(config), config, RANK_4, "CAUSAL_LM", "grpo_config.lora")
    try_lora(classifier_class(config), config, RANK_4, "SEQ_CLS", "reward_models.taste.lora")


def test_all_linear_leaves_out_only_what_cannot_be_adapted() -> None:
    adapted = LoraModel(causal_class(FALCON_H1)(FALCON_H1), lora_config(FALCON_H1, RANK_4, "CAUSAL_LM"), "default")
    names = {
        name.rpartition(".lora_A")[0].rpartition(".")[2] for name, _ in adapted.named_parameters() if "lora_A" in name
    }
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj", "in_proj", "gate_proj", "up_proj", "down_proj"}


def test_modules_that_the_model_does_not_have_are_refused_by_the_field() -> None:
    wanted = LoraSettings(target_modules=["nosuch"])
    with pytest.raises(ConfigError, match=r"reward_models\.taste\.lora\.target_modules=\['nosuch'\] does not fit"):
        try_lora(causal_class(LLAMA), LLAMA, wanted, "CAUSAL_LM", "reward_models.taste.lora")


def test_a_listed_module_that_is_not_there_is_refused_beside_one_that_is() -> None:
    """PEFT adapts the others, so that a slip of the pen trains less than was asked for."""
    wanted = LoraSettings(target_modules=["q_proj", "self_attn.v_proj", "vproj"])
    with pytest.raises(ConfigError, match="no module is called vproj; take the names of the model's own modules"):
        try_lora(causal_class(LLAMA), LLAMA, wanted, "CAUSAL_LM", "grpo_config.lora")
    try_lora(
        causal_class(LLAMA),
        LLAMA,
        LoraSettings(target_modules=["q_proj", "self_attn.v_proj"]),
        "CAUSAL_LM",
        "grpo_config.lora",
    )
