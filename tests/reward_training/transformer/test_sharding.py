"""What is gathered at once, and what cannot be split; with one rank at most. `tests/grpo_train/updating/test_sharded.py` has several."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import distributed
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from configs.errors import ConfigError
from configs.schema.grpo import LoraConfig
from grpo_train.policies.adapter import Adapter
from grpo_train.policies.model import load_policy, save_policy
from reward_training.transformer import sharding
from reward_training.transformer.sharding import ROOT, Sharding, with_weights
from tests.tiny_architectures import TOKENIZER, build

CPU = Sharding(torch.device("cpu"))


@pytest.fixture
def one_rank() -> Iterator[None]:
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.fixture
def tied(tmp_path: Path, one_rank: None) -> Path:
    save_policy(build("qwen2", tie_word_embeddings=True), TOKENIZER, tmp_path / "tied", round_index=0)
    return tmp_path / "tied"


def gathered_beside_layers(model: PreTrainedModel) -> list[tuple[int, ...]]:
    """Shapes of the weights that are gathered while a micro-batch runs."""
    (group,) = model.__dict__[ROOT]._get_fsdp_state()._fsdp_param_groups
    return sorted(tuple(weight._orig_size) for weight in group.fsdp_params)


def assert_same_logits(split: PreTrainedModel, path: Path) -> None:
    whole, _ = load_policy(path, device="cpu")
    ids = torch.arange(6).unsqueeze(0)
    assert torch.equal(with_weights(split, lambda model: model(input_ids=ids).logits), whole(input_ids=ids).logits)


def test_plain_embedding_and_head_are_not_gathered_while_a_micro_batch_runs(tied: Path) -> None:
    model, _ = load_policy(tied, device="cpu", sharding=CPU)
    assert gathered_beside_layers(model) == [tuple(model.model.norm.weight.shape)]
    assert_same_logits(model, tied)


def test_weight_that_is_embedding_and_head_is_gathered_once(tmp_path: Path, one_rank: None) -> None:
    """transformers ties weights after it has read them, so both were split, gathered and summed up, each as large as the vocabulary."""
    save_policy(build("gemma2", tie_word_embeddings=True), TOKENIZER, tmp_path, round_index=0)
    model, _ = load_policy(tmp_path, device="cpu", sharding=CPU)
    weights = (model.model.norm.weight, model.model.embed_tokens.weight)
    assert gathered_beside_layers(model) == sorted(tuple(weight.shape) for weight in weights)
    assert_same_logits(model, tmp_path)


def test_an_adapter_of_a_head_that_is_split_learns_what_it_learns_beside_a_whole_one(
    tmp_path: Path, one_rank: None
) -> None:
    save_policy(build("llama", tie_word_embeddings=False), TOKENIZER, tmp_path, round_index=0)
    lora = LoraConfig(rank=2, target_modules=["lm_head", "embed_tokens", "q_proj"])
    gradients = []
    for how in (CPU, None):
        model, _ = load_policy(tmp_path, device="cpu", sharding=how)
        Adapter(model, lora, seed=0)
        ids = torch.tensor([[3, 1, 4, 1, 5]])
        with_weights(model, lambda one, ids=ids: one(input_ids=ids).logits).square().sum().backward()
        gradients.append({name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad})
    split, whole = gradients
    assert split.keys() == whole.keys()
    assert any("lm_head" in name for name in split)
    for name, gradient in whole.items():
        torch.testing.assert_close(split[name], gradient)


def test_two_different_weights_that_the_configuration_ties_are_refused(tied: Path) -> None:
    file = tied / "model.safetensors"
    weights = load_file(file)
    save_file(weights | {"lm_head.weight": weights["model.embed_tokens.weight"] + 1}, file, {"format": "pt"})
    with pytest.raises(
        ConfigError, match=r"ties lm_head.weight to model.embed_tokens.weight.*set tie_word_embeddings to false"
    ):
        load_policy(tied, device="cpu", sharding=CPU)


def without_weights(kind: str, *, classifies: bool) -> PreTrainedModel:
    """A model without weights, with a head that classifies or one that writes."""
    config = CONFIG_MAPPING[kind]()
    auto = AutoModelForSequenceClassification if classifies else AutoModelForCausalLM
    with torch.device("meta"):
        model: PreTrainedModel = auto.from_config(config)
    return model


@pytest.mark.parametrize(
    ("kind", "classifies", "layers"),
    [
        ("llama", False, "model.layers"),
        ("llama", True, "model.layers"),
        ("gpt2", False, "transformer.h"),
        ("gpt2", True, "transformer.h"),
        ("bert", True, "bert.encoder.layer"),
        ("deberta-v2", True, "deberta.encoder.layer"),
        ("funnel", True, "funnel.encoder.blocks.0"),
    ],
)
def test_layers_are_gathered_one_by_one_whatever_their_name(kind: str, classifies: bool, layers: str) -> None:
    """Funnel has lists of layers in a list, which is never called itself."""
    model = without_weights(kind, classifies=classifies)
    assert sharding._layers(model) is model.get_submodule(layers)


@pytest.mark.parametrize(("num_ranks", "fits"), [(1, True), (2, True), (3, False), (4, True), (5, False)])
def test_a_mixture_is_split_among_ranks_that_each_get_an_expert(
    num_ranks: int, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 4 experts three ranks would get 2, 2 and 0."""
    monkeypatch.setattr(distributed, "get_world_size", lambda: num_ranks)
    config = CONFIG_MAPPING["qwen3_moe"](
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=40, num_experts=4
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    if fits:
        sharding._refuse_fewer_experts(model)
        return
    with pytest.raises(
        ConfigError, match=f"num_processes={num_ranks} leaves .* none of the 4 experts of model.layers.0"
    ):
        sharding._refuse_fewer_experts(model)
