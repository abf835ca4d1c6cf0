"""An adapter on weights that are tied is refused before work; what is merged is otherwise what was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig as PeftLora
from peft import get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from configs.errors import ConfigError
from configs.schema.grpo import LoraConfig
from configs.schema.lora import LoraSettings
from configs.schema.policy import PolicyConfig
from grpo_train.policies.adapter import FOLDER, Adapter
from grpo_train.policies.model import load_policy, open_policy, save_policy
from grpo_train.policies.model_source import prepare_policy
from grpo_train.policies.tiny_model import build_tiny_tokenizer
from reward_training.reward_models.adapter import add_adapter, merged
from reward_training.reward_models.backbone import check_classifier, load_backbone, load_classifier
from reward_training.reward_models.heads import causal_class, classifier_class
from reward_training.transformer.lora import try_lora
from tests.grpo_train.policies.test_adapter import logits_of
from tests.grpo_train.updating.test_learner import advantages, learner, written_by

SIZES: dict[str, Any] = {
    "vocab_size": 101, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 4, "pad_token_id": 0,
}  # fmt: skip
TARGETS: list[str | list[str]] = [
    ["lm_head"],
    ["embed_tokens"],
    ["q_proj", "lm_head"],
    ["model.embed_tokens", "v_proj"],
    ["embed_tokens", "lm_head"],
    r".*(_proj|head)",
    r"model\..*(embed_tokens|up_proj)",
]


def llama(*, tied: bool) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=tied)).eval()


@pytest.mark.parametrize("targets", TARGETS, ids=str)
def test_tied_weights_are_refused_by_name_before_work_and_when_the_adapter_is_made(targets: str | list[str]) -> None:
    """Merging changed both ends of the model: the saved policy was 0.1 to 0.2 nats a token from the trained one."""
    lora, model = LoraConfig(rank=2, target_modules=targets), llama(tied=True)
    told = r"grpo_config\.lora\.target_modules=.* adapts .*(embed_tokens|lm_head).*\(tie_word_embeddings\)"
    with pytest.raises(ConfigError, match=told):
        try_lora(causal_class(model.config), model.config, lora, "CAUSAL_LM", "grpo_config.lora")
    with pytest.raises(ConfigError, match=told):
        Adapter(model, lora, seed=0)


def test_other_names_of_tied_weights_are_found_too() -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=101, n_embd=16, n_layer=1, n_head=2))
    with pytest.raises(ConfigError, match=r"adapts transformer\.wte and lm_head, which are one weight"):
        Adapter(model, LoraConfig(target_modules=["wte"]), seed=0)


@pytest.mark.parametrize(
    ("tied", "targets"), [(True, "all-linear"), (True, ["q_proj"]), *((False, targets) for targets in TARGETS)], ids=str
)
def test_the_saved_policy_is_the_trained_one(tied: bool, targets: str | list[str], tmp_path: Path) -> None:
    model = llama(tied=tied)
    before = logits_of(model)
    completions = written_by(model)
    adapter = Adapter(model, LoraConfig(rank=4, target_modules=targets), seed=0)
    trainer = learner(model, learning_rate=2e-2)
    for _ in range(3):
        trainer.update(completions, advantages())
    trained = logits_of(model)
    assert (trained - before).abs().max() > 0.01
    save_policy(adapter.merge(), build_tiny_tokenizer(), tmp_path, round_index=1)
    again, _ = load_policy(tmp_path, device="cpu")
    torch.testing.assert_close(logits_of(again), trained, rtol=0, atol=2e-5)
    assert again.config.tie_word_embeddings is tied


@pytest.mark.parametrize("targets", [["embed_tokens"], "all-linear", ["embed_tokens", "q_proj"]], ids=str)
def test_a_reward_model_of_a_tied_model_has_one_end_alone(targets: str | list[str], tmp_path: Path) -> None:
    llama(tied=True).save_pretrained(str(tmp_path / "base"))
    build_tiny_tokenizer().save_pretrained(str(tmp_path / "base"))
    model, ids = load_backbone(tmp_path / "base", seed=0).eval(), torch.tensor([[5, 6, 7, 8]])
    lora = LoraSettings(rank=2, target_modules=targets)
    try_lora(classifier_class(model.config), model.config, lora, "SEQ_CLS", "reward_models.taste.lora")
    adapter = add_adapter(model, lora, seed=0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight += 0.1
        expected = adapter.model(ids).logits
    merged(adapter).save_pretrained(str(tmp_path / "saved"))
    build_tiny_tokenizer().save_pretrained(str(tmp_path / "saved"))
    with torch.no_grad():
        torch.testing.assert_close(load_classifier(tmp_path / "saved")(ids).logits, expected, rtol=0, atol=1e-5)


# ---- adapters that somebody brings ----------------------------------------------------------------------------------


def brought(model: PreTrainedModel, folder: Path, **settings: Any) -> Path:
    get_peft_model(model, PeftLora(r=2, task_type="CAUSAL_LM", **settings)).save_pretrained(
        str(folder), save_embedding_layers=False
    )
    build_tiny_tokenizer().save_pretrained(str(folder))
    return folder


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"target_modules": ["q_proj"]}, None),
        ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, "lm_head"),
        ({"target_modules": ["embed_tokens", "q_proj"]}, "embed_tokens"),
    ],
)
@pytest.mark.parametrize("with_configuration", [False, True])
def test_a_folder_with_an_adapter_is_no_policy(
    settings: dict[str, Any], told: str | None, with_configuration: bool, tmp_path: Path
) -> None:
    """With a config.json beside it transformers loads the base from elsewhere and puts the adapter into it."""
    model = llama(tied=False)
    folder = brought(model, tmp_path / "brought", **settings)
    if with_configuration:
        model.config.save_pretrained(str(folder))
    untied = (
        rf"; it changes {told}: if its base has tie_word_embeddings, load that with tie_word_embeddings=False"
        if told
        else ""
    )
    match = rf"policy\.path: {folder} holds a PEFT adapter, .*save what `merge_and_unload\(\)` returns, .*policy\.path to that{untied}"
    for load in (
        lambda: prepare_policy(PolicyConfig(path=str(folder)), tmp_path / "models"),
        lambda: load_policy(folder, device="cpu"),
    ):
        with pytest.raises(ConfigError, match=match) as caught:
            load()
        assert ("tie_word_embeddings" in str(caught.value)) == (told is not None)
    with pytest.raises(ConfigError, match=r"reward_models\.taste\.path: .* holds a PEFT adapter"):
        check_classifier(folder, "reward_models.taste.path")


@pytest.mark.parametrize("module", ["q_proj", "embed_tokens"])
def test_an_adapter_that_is_carried_on_is_loaded_whole_or_not_at_all(module: str, tmp_path: Path) -> None:
    model = llama(tied=False)
    given = save_policy(model, build_tiny_tokenizer(), tmp_path / "given", round_index=0)
    lora = LoraConfig(rank=2, target_modules=[module], between_rounds="carry_on")
    Adapter(model, lora, seed=0).save(tmp_path / FOLDER, open_policy(Path(given.path), 0))
    again, _ = load_policy(given.path, device="cpu")
    Adapter(again, lora, seed=0, carried=tmp_path / FOLDER)
    settings = tmp_path / FOLDER / "adapter_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"target_modules": ["v_proj"]}))
    again, _ = load_policy(given.path, device="cpu")
    with pytest.raises(ConfigError, match=r"does not fit its model: it lacks 4 weights and has [24] others"):
        Adapter(again, lora, seed=0, carried=tmp_path / FOLDER)
