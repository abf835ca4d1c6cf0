"""What is written for servers, and how a server's refusals are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import LlamaForCausalLM, Qwen2MoeConfig, Qwen2MoeForCausalLM

from configs.errors import ConfigError, ServerRefused
from configs.records import Policy
from grpo_train.sampling.vllm import weights
from grpo_train.sampling.vllm.named_weights import named_weights
from grpo_train.sampling.vllm.plugin import check_plugin
from grpo_train.sampling.vllm.weights import Files, Lora, named
from tests.vllm_servers import tiny


def adapted(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """The model with an adapter in it that changes what it says."""
    get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM"))
    return model


def names_in(folder: Path) -> dict[str, list[int]]:
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 - no mapping


@pytest.mark.parametrize("tied", [False, True])
def test_names_and_shapes_are_those_of_a_saved_model(tmp_path: Path, tied: bool) -> None:
    model = tiny(tied=tied)
    model.save_pretrained(str(tmp_path))
    assert {name: list(tensor.shape) for name, tensor in named_weights(model)} == names_in(tmp_path)


def test_experts_are_named_one_by_one_as_in_files(tmp_path: Path) -> None:
    """In memory the experts of a layer are one tensor; vLLM reads them as files hold them."""
    sizes = {
        "vocab_size": 32,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    experts = {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 8,
        "shared_expert_intermediate_size": 8,
    }
    Qwen2MoeForCausalLM(Qwen2MoeConfig(**sizes, **experts, num_key_value_heads=2)).save_pretrained(str(tmp_path))
    model = Qwen2MoeForCausalLM.from_pretrained(str(tmp_path))
    given = {name: list(tensor.shape) for name, tensor in named_weights(model)}
    assert given == names_in(tmp_path)
    assert "model.layers.0.mlp.experts.3.up_proj.weight" in given


def test_adapter_is_merged_into_what_is_written_and_not_into_the_model(tmp_path: Path) -> None:
    model, tokens = adapted(tiny()), torch.arange(8)[None]
    with torch.no_grad():
        Files(tmp_path, is_main=True).prepare(model, "a")
        written = tiny(seed=1)
        written.load_state_dict(load_file(tmp_path / named("a") / "model.safetensors"))
        assert torch.allclose(written(tokens).logits, model(tokens).logits, atol=1e-4)
        assert not torch.allclose(written(tokens).logits, tiny()(tokens).logits, atol=0.1)
    assert any(".lora_A." in name for name in model.state_dict())


def test_written_adapter_is_one_that_peft_loads(tmp_path: Path) -> None:
    model, tokens = adapted(tiny()), torch.arange(8)[None]
    Lora(tmp_path, Policy(path="base", id="base", round=0), is_main=True).prepare(model, "a")
    loaded = PeftModel.from_pretrained(tiny(), str(tmp_path / named("a")))
    with torch.no_grad():
        assert torch.equal(loaded(tokens).logits, model(tokens).logits)


def test_large_weights_are_written_in_pieces_with_an_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "PIECE_BYTES", 100_000)
    model = tiny()
    Files(tmp_path, is_main=True).prepare(model, "a")
    folder = tmp_path / named("a")
    assert len(list(folder.glob("*.safetensors"))) > 1
    (folder / "config.json").write_text(model.config.to_json_string())
    loaded = LlamaForCausalLM.from_pretrained(str(folder))
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in loaded.state_dict().items())


def test_newest_two_versions_stay_on_disk(tmp_path: Path) -> None:
    files = Files(tmp_path, is_main=True)
    for version in "abc":
        files.prepare(tiny(), version)
    assert {path.name for path in tmp_path.iterdir()} == {named("b"), named("c")}


def test_rank_beside_the_main_one_writes_nothing(tmp_path: Path) -> None:
    Files(tmp_path, is_main=False).prepare(tiny(), "a")
    assert list(tmp_path.iterdir()) == []


class Refusing:
    """A server that refuses everything with one text."""

    url = "http://127.0.0.1:1"

    def __init__(self, text: str) -> None:
        self._text = text

    def post(self, path: str, body: dict[str, Any], timeout_s: float) -> Any:
        raise ServerRefused(self._text, status=404 if "404" in self._text else 500)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("POST /init: status 404: Not Found", "without VLLM_SERVER_DEV_MODE=1"),
        ("Weight transfer not configured. Please set", "without --weight-transfer-config"),
        ("Invalid init_info for NCCLWeightTransferEngine: ...", "another backend"),
        (
            "x Worker failed with error 'speaks protocol 2', please check the stack trace above",
            "weights: speaks protocol 2;",
        ),
    ],
)
def test_what_a_server_lacks_is_named(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match="regroup vllm CONFIG") as caught:
        check_plugin(Refusing(text))  # type: ignore[arg-type]
    assert told in str(caught.value)
