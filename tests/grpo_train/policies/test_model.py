from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from configs.disk.files import digest, digest_json
from configs.errors import ConfigError
from grpo_train.policies.model import load_policy, load_tokenizer, open_policy, policy_id, save_policy
from grpo_train.policies.tiny_model import build_tiny_tokenizer, save_tiny_model


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    save_tiny_model(tmp_path / "tiny")
    return tmp_path / "tiny"


def test_saved_policy_keeps_its_id_weights_and_chat_template(tiny: Path, tmp_path: Path) -> None:
    model, tokenizer = load_policy(tiny, device="cpu")
    saved = save_policy(model, tokenizer, tmp_path / "copy", round_index=3)
    again, again_tokenizer = load_policy(saved.path, device="cpu")
    assert saved.id == policy_id(tiny)
    assert saved.round == 3
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert again_tokenizer.chat_template == tokenizer.chat_template
    assert (again_tokenizer.pad_token, again_tokenizer.eos_token) == ("<pad>", "<|im_end|>")


def test_policy_is_loaded_in_float32_and_for_evaluation(tiny: Path) -> None:
    model, _ = load_policy(tiny, device="cpu")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not model.training


def test_policy_id_is_the_digest_of_names_and_contents_of_safetensors(tmp_path: Path) -> None:
    for name in ("b.safetensors", "a.safetensors", "config.json"):
        (tmp_path / name).write_text(name)
    expected = digest_json([[name, digest(tmp_path / name)] for name in ("a.safetensors", "b.safetensors")])
    assert policy_id(tmp_path) == expected
    (tmp_path / "config.json").write_text("other")
    assert policy_id(tmp_path) == expected
    (tmp_path / "b.safetensors").write_text("other")
    assert policy_id(tmp_path) != expected


def test_one_changed_weight_changes_the_policy_id(tiny: Path, tmp_path: Path) -> None:
    model, tokenizer = load_policy(tiny, device="cpu")
    with torch.no_grad():
        next(model.parameters())[0, 0] += 1e-3
    assert save_policy(model, tokenizer, tmp_path / "changed", round_index=1).id != open_policy(tiny, 0).id


def test_missing_pad_token_becomes_a_reserved_token_before_the_end_of_sequence(tmp_path: Path) -> None:
    """Padding with the end of sequence hides where a response ended, so it comes last."""
    tokenizer = build_tiny_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(str(tmp_path))
    assert load_tokenizer(tmp_path).pad_token == "<pad>"


def test_tokenizer_without_an_end_of_sequence_is_refused(tmp_path: Path) -> None:
    tokenizer = build_tiny_tokenizer()
    tokenizer.eos_token = None
    tokenizer.save_pretrained(str(tmp_path))
    with pytest.raises(ConfigError, match="eos_token"):
        load_tokenizer(tmp_path)


def test_folder_without_a_tokenizer_is_refused_with_the_remedy(tmp_path: Path) -> None:
    config = LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    LlamaForCausalLM(config).save_pretrained(str(tmp_path))
    with pytest.raises(ConfigError, match="save one beside the model"):
        load_policy(tmp_path, device="cpu")


def test_tokenizer_without_a_model_is_refused(tmp_path: Path) -> None:
    build_tiny_tokenizer().save_pretrained(str(tmp_path))
    with pytest.raises(ConfigError, match="no causal language model"):
        load_policy(tmp_path, device="cpu")
