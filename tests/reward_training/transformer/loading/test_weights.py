"""A folder that lacks weights, or whose weights would be dropped, is refused by name wherever a model is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GPT2Config,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from configs.errors import ConfigError
from grpo_train.policies.gguf import read_gguf
from grpo_train.policies.model import check_policy, load_policy
from reward_training.reward_models.backbone import check_backbone, check_classifier, load_backbone, load_classifier
from reward_training.transformer.loading.adapters import load_adapter
from reward_training.transformer.loading.faults import wrapper

Weights = dict[str, Tensor]
Change = Callable[[Weights], Weights]
SIZES: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
    "bos_token_id": None, "eos_token_id": 1,
}  # fmt: skip
UP = "model.layers.0.mlp.up_proj.weight"
FIELD = "reward_models.taste.backbone.path"


@pytest.fixture
def saved(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Callable[..., Path]:
    """Saves a small model and its tokenizer, with changed weights."""

    def save(change: Change = lambda weights: weights, kind: Any = AutoModelForCausalLM, **fields: Any) -> Path:
        config = fields.pop("config", LlamaConfig)(**SIZES, vocab_size=len(tokenizer), **fields)
        torch.manual_seed(0)
        kind.from_config(config).save_pretrained(str(tmp_path))
        tokenizer.save_pretrained(str(tmp_path))
        file = tmp_path / "model.safetensors"
        changed = {name: weight.contiguous().clone() for name, weight in change(load_file(file)).items()}
        save_file(changed, file, metadata={"format": "pt"})
        return tmp_path

    return save


def renamed(old: str, new: str) -> Change:
    return lambda weights: {name.replace(old, new): weight for name, weight in weights.items()}


def prefixed(prefix: str) -> Change:
    return lambda weights: {prefix + name: weight for name, weight in weights.items()}


def with_(**others: Tensor) -> Change:
    return lambda weights: weights | {name.replace("__", "."): weight for name, weight in others.items()}


def without(part: str) -> Change:
    return lambda weights: {name: weight for name, weight in weights.items() if part not in name}


def unmerged(weights: Weights) -> Weights:
    """As PEFT saves the state of a model with an adapter."""
    names = {name: name.replace("_proj.weight", "_proj.base_layer.weight") for name in weights}
    adapter = {UP.replace("weight", f"lora_{side}.default.weight"): torch.ones(2, 2) for side in "AB"}
    return {f"base_model.model.{names.get(name, name)}": weight for name, weight in (weights | adapter).items()}


FAULTS: dict[str, tuple[Change, str]] = {
    "a layer": (
        without("layers.1."),
        r"lacks 9 of the 21 weights of Llama\w+, which would be random: model\.layers\.1\.input_layernorm\.weight, .* and 6 more; ",
    ),
    "one norm": (without("model.norm"), r"lacks 1 of the 21 weights .*: model\.norm\.weight; "),
    "module": (prefixed("module."), r"have 'module\.' in them, which DistributedDataParallel or DeepSpeed writes: "),
    "model.module": (renamed("model.", "model.module."), r"have 'module\.' in them, which DistributedDataParallel"),
    "compiled": (prefixed("_orig_mod."), r"have '_orig_mod\.' in them, which torch\.compile writes"),
    "both": (prefixed("module._orig_mod."), r"have 'module\._orig_mod\.' in them, which torch\.compile and Distributed"),
    "fsdp": (
        renamed("layers.0.", "layers.0._fsdp_wrapped_module."),
        r"lacks 9 of .* have '_fsdp_wrapped_module\.' in them, which FSDP writes",
    ),
    "recomputed": (
        renamed("layers.1.mlp.", "layers.1.mlp._checkpoint_wrapped_module."),
        r"lacks 3 of .* which activation checkpointing writes",
    ),
    "peft": (prefixed("base_model.model."), r"have 'base_model\.model\.' in them, which PEFT writes"),
    "unmerged": (unmerged, r"a PEFT adapter is not merged into them: save `merge_and_unload\(\)`"),
    "trl": (prefixed("pretrained_model."), r"which TRL's model with a value head writes"),
    "actor": (prefixed("actor."), r"have 'actor\.' in them: save the model that is wrapped"),
    "shape": (
        with_(model__norm__weight=torch.ones(3)),
        r"has one weight of another shape than config\.json says: model\.norm\.weight is 3, not 16",
    ),
    "bias": (
        with_(model__layers__0__self_attn__q_proj__bias=torch.ones(16)),
        r"one weight that Llama\w+ would drop: model\.layers\.0\.self_attn\.q_proj\.bias; ",
    ),
    "fp8": (
        lambda weights: weights | {UP: weights[UP].to(torch.float8_e4m3fn), f"{UP}_scale_inv": torch.ones(1, 1)},
        r"up_proj\.weight_scale_inv; .* lacks the quantization_config",
    ),
    "int8": (
        lambda weights: weights | {UP: torch.ones(32, 16, dtype=torch.int8)},
        r"has one weight of type I8, and config\.json no quantization_config: model\.layers\.0\.mlp\.up_proj\.weight",
    ),
    "gptq": (renamed("up_proj.weight", "up_proj.qweight"), r"lacks 2 of .* the file has others \("),
    "nan": (
        with_(model__norm__weight=torch.tensor([float("nan"), *[1.0] * 15])),
        r"has NaN or infinity in its weights: model\.norm\.weight",
    ),
    "infinite": (
        lambda weights: weights | {UP: torch.full((32, 16), -torch.inf, dtype=torch.bfloat16)},
        r"NaN or infinity in its weights: model\.layers\.0\.mlp\.up_proj\.weight",
    ),
}  # fmt: skip


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_weights_are_refused_by_every_loader_and_check(
    saved: Callable[..., Path], fault: str, tied: bool
) -> None:
    """transformers filled them up with random numbers, other ones at each load, and a run ended with exit code 0."""
    change, told = FAULTS[fault]
    folder = saved(change, tie_word_embeddings=tied)
    for of_policy in (lambda: load_policy(folder, device="cpu"), lambda: check_policy(folder)):
        with pytest.raises(ConfigError, match=rf"policy\.path: {folder} .*{told}"):
            of_policy()
    with pytest.raises(ConfigError, match=rf"reward_models\.<name>\.backbone\.path: .*{told}"):
        load_backbone(folder, seed=0)
    with pytest.raises(ConfigError, match=rf"{FIELD}: .*{told}"):
        check_backbone(folder, FIELD)


@pytest.mark.parametrize(
    ("change", "tied"),
    [
        (lambda weights: weights, False),
        (without("lm_head"), True),
        (with_(v_head__weight=torch.ones(1, 16), extra=torch.ones(2)), False),
        (with_(model__layers__0__self_attn__rotary_emb__inv_freq=torch.ones(4)), True),
        (with_(model__layers__7__mlp__up_proj__weight=torch.ones(32, 16)), False),
        (with_(mtp__proj__weight=torch.full((2,), torch.nan)), False),
        (lambda weights: {name: weight.bfloat16() for name, weight in weights.items()}, True),
        (lambda weights: {name.removeprefix("model."): weight for name, weight in weights.items()}, True),
    ],
    ids=["whole", "tied head", "spare heads", "spare buffers", "spare layer", "spare NaN", "bfloat16", "bare body"],
)
def test_ties_and_spare_weights_are_fine(saved: Callable[..., Path], change: Change, tied: bool) -> None:
    folder = saved(change, tie_word_embeddings=tied)
    check_policy(folder)
    check_backbone(folder, FIELD)
    model, _ = load_policy(folder, device="cpu")
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied
    again = load_backbone(folder, seed=0)
    assert torch.equal(again.get_parameter("model.norm.weight"), model.get_parameter("model.norm.weight"))


def test_an_untied_head_that_is_missing_is_refused(saved: Callable[..., Path]) -> None:
    folder = saved(without("lm_head"), tie_word_embeddings=False)
    with pytest.raises(ConfigError, match=r"lacks 1 of the 21 weights .*: lm_head\.weight; copy or save"):
        load_policy(folder, device="cpu")
    load_backbone(folder, seed=0)  # it needs none


@pytest.mark.parametrize(
    ("own", "told"),
    [(Qwen2Config, r"6 weights .*k_proj\.bias"), (Qwen3Config, r"4 weights .*layers\.0\.self_attn\.k_norm\.weight")],
)
def test_a_configuration_of_another_architecture_is_refused(
    saved: Callable[..., Path], own: type[PreTrainedConfig], told: str
) -> None:
    """All weights of a Llama are there, and what Qwen has beside them was left out."""
    folder = saved(config=own, head_dim=8, tie_word_embeddings=False)
    LlamaConfig(**SIZES, head_dim=8, vocab_size=101, architectures=["LlamaForCausalLM"]).save_pretrained(str(folder))
    with pytest.raises(ConfigError, match=rf"{told}.*config\.json is another architecture's"):
        check_policy(folder)
    GPT2Config(vocab_size=101, n_embd=16, n_layer=2, n_head=2).save_pretrained(str(folder))
    with pytest.raises(ConfigError, match=r"lacks \d+ of the \d+ weights of GPT2LMHeadModel"):
        load_policy(folder, device="cpu")


# ---- files ----------------------------------------------------------------------------------------------------------


def test_a_torn_file_is_told_as_such(saved: Callable[..., Path]) -> None:
    folder = saved()
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    for load in (
        check_policy,
        lambda folder: load_policy(folder, device="cpu"),
        lambda folder: load_backbone(folder, 0),
    ):
        with pytest.raises(ConfigError, match=rf"a file of {folder} is torn \(.*\); copy or save the model again"):
            load(folder)


def test_shards_are_read_and_an_absent_one_is_named(saved: Callable[..., Path]) -> None:
    folder = saved()
    model = AutoModelForCausalLM.from_pretrained(str(folder))
    (folder / "model.safetensors").unlink()
    model.save_pretrained(str(folder), max_shard_size="20KB")
    check_policy(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    for load in (check_policy, lambda folder: load_policy(folder, device="cpu")):
        with pytest.raises(ConfigError, match=r"model-00002-of-00002\.safetensors.*; set policy\.path to one"):
            load(folder)


def test_a_gguf_file_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "half.gguf", "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<unk>", "<s>", "</s>", *map(chr, range(33, 49))])
    writer.add_token_scores([0.0] * 19)
    writer.add_token_types([2, 3, 3, *[1] * 16])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(16)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(19)
    writer.add_tensor("token_embd.weight", torch.ones(19, 16).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ConfigError, match=r"policy\.wheel: .* lacks \d+ of the \d+ weights of LlamaForCausalLM"):
        read_gguf(tmp_path / "half.gguf")


# ---- reward models --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["v_head.summary", "value_head", "reward_head", "classifier.out_proj"])
def test_a_reward_model_whose_head_has_another_name_is_refused(saved: Callable[..., Path], head: str) -> None:
    """It scored at random, and otherwise at the next load."""
    folder = saved(renamed("score.", f"{head}."), AutoModelForSequenceClassification, num_labels=1)
    for load, field in (
        (load_classifier, "reward_models.<name>.path"),
        (lambda folder: check_classifier(folder, "reward_models.taste.path"), "reward_models.taste.path"),
        (lambda folder: load_backbone(folder, seed=0), "reward_models.<name>.backbone.path"),
    ):
        with pytest.raises(
            ConfigError, match=rf"{field}: .* would be random: score\.weight; the file has others \({head}"
        ):
            load(folder)


def test_a_language_model_is_no_frozen_reward_model(saved: Callable[..., Path]) -> None:
    folder = saved()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"id2label": {"0": "quality"}}))
    with pytest.raises(ConfigError, match=r"would be random: score\.weight; "):
        load_classifier(folder)
    assert load_backbone(folder, seed=0).get_parameter("score.weight").shape == (1, 16)


def test_outputs_of_configuration_and_head_have_to_agree(saved: Callable[..., Path]) -> None:
    folder = saved(kind=AutoModelForSequenceClassification, num_labels=2)
    with pytest.raises(ConfigError, match=r"reward_models\.taste\.path: .* has 2 outputs"):
        check_classifier(folder, "reward_models.taste.path")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"id2label": {"0": "quality"}, "label2id": {"quality": 0}}))
    for load in (load_classifier, lambda folder: load_backbone(folder, seed=0)):
        with pytest.raises(ConfigError, match=r"score\.weight is 2 x 16, not 1 x 16"):
            load(folder)


# ---- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("module.model.norm.weight", "module."),
        ("model.module.norm.weight", "module."),
        ("_fsdp_wrapped_module.model._fsdp_wrapped_module.norm.weight", "_fsdp_wrapped_module._fsdp_wrapped_module."),
        ("student.net.model.norm.weight", "student.net."),
        ("my_module.norm.weight", None),
        ("model.norm.bias", None),
    ],
)
def test_what_a_wrapper_wrote_is_found_anywhere_in_a_name(name: str, found: str | None) -> None:
    assert wrapper(["model.norm.weight"], [name]) == found


def test_an_adapter_that_does_not_fit_its_model_is_refused(saved: Callable[..., Path], tmp_path: Path) -> None:
    """PEFT warns of what is missing, says nothing of what is left over, and trains on."""
    from peft import LoraConfig, get_peft_model

    def model() -> Any:
        return AutoModelForCausalLM.from_pretrained(str(saved()))

    folder = tmp_path / "adapter"
    get_peft_model(
        model(), LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    ).save_pretrained(str(folder))
    load_adapter(model(), folder)
    file = folder / "adapter_model.safetensors"
    weights = load_file(file)
    save_file({name.replace("layers.1.", "layers.5."): weight for name, weight in weights.items()}, file)
    with pytest.raises(ConfigError, match=r"lacks 4 weights and has 4 others \(.*layers\.1\."):
        load_adapter(model(), folder)
