import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from configs.disk.files import digest, digest_json
from configs.errors import ConfigError
from configs.records import Problem
from grpo_train.policies.model import (
    load_policy,
    load_tokenizer,
    open_policy,
    policy_id,
    save_policy,
    write_greedy_generation,
)
from grpo_train.policies.tiny_model import build_tiny_tokenizer, save_tiny_model
from grpo_train.sampling.generation import Sampling, sample
from reward_training.transformer.token_logprobs import plain_head
from reward_training.transformer.turn_ends import stop_token_ids
from tests.reward_training.transformer.templates import CHATML, STRICT, tokenizer_with


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


# ---- what a model brings for generation -----------------------------------------------------------------------------

BROUGHT = [
    {"min_p": 0.05},
    {"typical_p": 0.9, "epsilon_cutoff": 3e-4, "eta_cutoff": 1e-3, "do_sample": True, "temperature": 0.6, "top_k": 20},
    {"top_h": 0.5, "penalty_alpha": 0.6},
    {"repetition_penalty": 1.3},
    {"encoder_repetition_penalty": 1.5, "no_repeat_ngram_size": 2, "bad_words_ids": [[7]], "suppress_tokens": [5]},
    {"num_beams": 3, "early_stopping": True, "length_penalty": 2.0, "num_return_sequences": 2},
    {"max_length": 3, "max_new_tokens": 2, "min_new_tokens": 2, "forced_eos_token_id": 3},
    {"num_return_sequences": 3},
    {"max_new_tokens": -1},
    {"early_stopping": "x"},
    {"use_cache": False, "cache_implementation": "static", "stop_strings": ["a"]},
]


@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
@pytest.mark.parametrize("brought", BROUGHT, ids=lambda brought: "-".join(brought))
def test_saved_policy_generates_what_the_sampler_measured_whatever_the_model_brings(
    tiny: Path, tmp_path: Path, brought: dict[str, Any], file: str
) -> None:
    """Such a model trained for a whole round and could not be saved, or was saved with a penalty that nobody measured."""
    if file == "config.json":  # as models of 2023 have it
        if brought == {"max_new_tokens": -1}:
            pytest.skip("transformers refuses such a configuration")
        (tiny / "generation_config.json").unlink()
    settings = json.loads((tiny / file).read_text())
    (tiny / file).write_text(json.dumps(settings | brought))
    model, tokenizer = load_policy(tiny, device="cpu")
    save_policy(model, tokenizer, tmp_path / "saved", round_index=1)
    problems = [_sum(i) for i in range(4)]
    sampling = Sampling(group_size=1, temperature=0, max_response_length=24)
    measured = sample(model, tokenizer, problems, sampling, seed=0, policy_id="p")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    for completion in measured:
        ids = torch.tensor([completion.prompt_ids])
        written = plain.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=24)
        assert written[0, ids.shape[1] :].tolist() == completion.token_ids


def _sum(i: int) -> Problem:
    return Problem(
        key=str(i), prompt=[{"role": "user", "content": f"{i} + {3 * i} ="}], answer="", source="s", split="dev"
    )


def test_end_tokens_of_model_and_tokenizer_are_kept(tiny: Path, tmp_path: Path) -> None:
    settings = json.loads((tiny / "generation_config.json").read_text())
    (tiny / "generation_config.json").write_text(json.dumps(settings | {"eos_token_id": [7, 9]}))
    model, tokenizer = load_policy(tiny, device="cpu")
    save_policy(model, tokenizer, tmp_path / "saved", round_index=1)
    saved = json.loads((tmp_path / "saved" / "generation_config.json").read_text())
    assert saved["eos_token_id"] == [7, 9, tokenizer.eos_token_id]
    assert stop_token_ids(load_policy(tmp_path / "saved", device="cpu")[0], tokenizer) == {7, 9, tokenizer.eos_token_id}


def test_given_folder_is_exported_as_it_was_measured(tiny: Path) -> None:
    (tiny / "generation_config.json").write_text(json.dumps({"repetition_penalty": 1.3, "eos_token_id": 7}))
    write_greedy_generation(tiny)
    saved = GenerationConfig.from_pretrained(tiny).to_diff_dict()
    del saved["transformers_version"]
    assert saved == {"do_sample": False, "eos_token_id": [7, 4], "pad_token_id": 0}


# ---- the end of a turn ----------------------------------------------------------------------------------------------


def small_policy(tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    """A random model whose generation_config names the tokenizer's end of sequence alone."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


@pytest.mark.parametrize(("template", "end"), [(CHATML, "<|im_end|>"), (STRICT, "<|eot|>")])
def test_the_end_of_a_turn_ends_a_response_also_of_the_saved_policy(template: str, end: str, tmp_path: Path) -> None:
    """A base model whose template ends turns by a token of its own never stopped: its tokenizer ends with another."""
    tokenizer = tokenizer_with(template)
    ids = tokenizer.convert_tokens_to_ids(["<|endoftext|>", end])
    model, loaded = load_policy(small_policy(tokenizer, tmp_path / "given"), device="cpu")
    assert stop_token_ids(model, loaded) == set(ids)
    save_policy(model, loaded, tmp_path / "saved", round_index=1)
    assert AutoModelForCausalLM.from_pretrained(str(tmp_path / "saved")).generation_config.eos_token_id == ids


def test_a_policy_that_stops_already_keeps_its_settings(tmp_path: Path) -> None:
    tokenizer = tokenizer_with(CHATML, eos="<|im_end|>")
    model, _ = load_policy(small_policy(tokenizer, tmp_path), device="cpu")
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id


def test_full_memory_is_told_as_such_and_not_as_a_model_that_is_none(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a RuntimeError, as are the faults of a model that cannot be called so: it was taken for one of these."""
    model, _ = load_policy(tiny, device="cpu")

    def full(*args: Any, **kwargs: Any) -> None:
        raise torch.OutOfMemoryError("no memory left")

    monkeypatch.setattr(model.get_decoder(), "forward", full)
    with pytest.raises(torch.OutOfMemoryError):
        plain_head(model)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", full)
    with pytest.raises(torch.OutOfMemoryError):
        load_policy(tiny, device="cpu")
