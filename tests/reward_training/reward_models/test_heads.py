"""A reward model of every causal language model: a head of our own where transformers has no classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BertConfig,
    LlamaForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    ViTConfig,
)

from configs.errors import ConfigError
from configs.records import PreferencePair
from configs.schema.lora import LoraSettings
from configs.schema.reward_models import TrainedRewardModel
from reward_training.reward_models.backbone import load_backbone, load_classifier
from reward_training.reward_models.heads import classifier_class, refuse_without_head
from reward_training.reward_models.scores import RewardModelScorer
from reward_training.reward_models.train import train_reward_model
from reward_training.transformer.rendering import conversation_text
from tests.reward_training.reward_models.test_distinct import pair

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}
MOE = {"num_experts": 4, "num_experts_per_tok": 2}
FAMILIES: dict[str, dict[str, Any]] = {
    "granite": {},
    "olmoe": MOE,
    "ernie4_5": {},
    "apertus": {},
    "cohere2": {},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "glm4_moe": {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "mamba": {"state_size": 8, "expand": 2},
    "gemma3n_text": {
        "layer_types": ["sliding_attention", "full_attention"],
        "intermediate_size": [48, 48],
        "activation_sparsity_pattern": [0.0, 0.0],
        "vocab_size_per_layer_input": 64,
        "hidden_size_per_layer_input": 8,
        "laurel_rank": 4,
        "num_kv_shared_layers": 0,
    },
}


def causal_model(family: str, folder: Path, vocab_size: int = 128) -> PreTrainedModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **(SIZES | {"vocab_size": vocab_size} | FAMILIES[family]))
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config).float().eval()
    model.save_pretrained(str(folder))
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_the_score_is_a_linear_function_of_the_last_hidden_state(family: str, tmp_path: Path) -> None:
    """As by hand on the causal model's decoder, with padding behind, and again after saving and loading."""
    causal = causal_model(family, tmp_path / "causal")
    made = load_backbone(tmp_path / "causal", seed=3).eval()
    assert type(made).__name__.endswith("ForSequenceClassification")
    ids = torch.tensor([[5, 6, 7, 8, 9], [11, 12, 13, 0, 0]])
    mask = (ids != 0).long()
    with torch.no_grad():
        by_hand = torch.stack(
            [
                causal.base_model(input_ids=row[None, :length], use_cache=False).last_hidden_state[0, -1]
                for row, length in zip(ids, (5, 3), strict=True)
            ]
        )
        expected = by_hand @ made.get_submodule("score").weight.T
        assert made.get_submodule("score").weight.shape == (1, 32)
        torch.testing.assert_close(made(input_ids=ids, attention_mask=mask).logits, expected)
        made.save_pretrained(str(tmp_path / "reward"))
        again = load_classifier(tmp_path / "reward")
        torch.testing.assert_close(again(input_ids=ids, attention_mask=mask).logits, expected)
        resumed = load_backbone(tmp_path / "reward", seed=4)
    assert torch.equal(resumed.get_submodule("score").weight, made.get_submodule("score").weight)


def test_the_head_depends_on_the_seed_alone(tmp_path: Path) -> None:
    causal_model("granite", tmp_path)
    first, again, other = (load_backbone(tmp_path, seed).get_submodule("score").weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_transformers_own_classifier_is_taken_where_there_is_one() -> None:
    assert classifier_class(AutoConfig.for_model("llama")) is LlamaForSequenceClassification
    assert classifier_class(AutoConfig.for_model("gemma3n")).__name__ == "Gemma3nForSequenceClassification"
    assert classifier_class(AutoConfig.for_model("gemma3n")).config_class.model_type == "gemma3n_text"


@pytest.mark.parametrize(
    "config", [ViTConfig(), T5Config(is_encoder_decoder=True), BertConfig()], ids=["vit", "t5", "bert"]
)
def test_what_is_no_causal_language_model_is_refused(config: Any) -> None:
    with pytest.raises(ConfigError, match=r"no reward model can be (made of|trained from) .*backbone\.path"):
        refuse_without_head(config)


@pytest.mark.parametrize(
    ("family", "lora"),
    [
        ("granite", None),
        ("granite", LoraSettings(rank=2, target_modules="all-linear")),
        ("olmoe", None),
        ("gemma3n_text", None),
    ],
)
def test_it_is_trained_scored_and_trained_on(
    family: str, lora: LoraSettings | None, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    causal_model(family, tmp_path / "policy", len(tokenizer))
    tokenizer.save_pretrained(str(tmp_path / "policy"))
    pairs: list[PreferencePair] = [pair("7" * (1 + i % 3), "0" * (1 + i % 2), prompt=f"Say {i}") for i in range(16)]
    settings = TrainedRewardModel.model_validate(
        {
            "kind": "trained",
            "labeler": {"kind": "score"},
            "epochs": 8,
            "batch_size": 8,
            "learning_rate": 3e-3,
            "lora": lora,
        }
    )

    def train(base: str, out: str) -> list[float]:
        margins: list[float] = []
        train_reward_model(
            pairs,
            base=tmp_path / base,
            out_dir=tmp_path / out,
            config=settings,
            seed=0,
            on_step=lambda step, metrics: margins.append(metrics["reward_model/margin"]),
            should_stop=lambda: False,
        )
        return margins

    first = train("policy", "first")
    assert first[-1] > max(first[0], 0.5)
    with RewardModelScorer(tmp_path / "first", max_length=64, precision="float32") as scorer:
        texts = [
            conversation_text(scorer.tokenizer, pairs[0].prompt, text) for text in (pairs[0].chosen, pairs[0].rejected)
        ]
        good, bad = scorer.scores(texts)
        alone = [scorer.scores([text])[0] for text in texts]
    assert good > bad
    assert alone == pytest.approx([good, bad], abs=1e-5)
    assert train("first", "second")[0] > first[0] + 0.2
