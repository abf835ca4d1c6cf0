"""Models that are not whole are refused by run, doctor and export before anything is computed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, LlamaConfig

from configs.errors import ConfigError
from configs.reader import load_config
from configs.records import Policy
from flows import commands
from flows.cli import main
from flows.doctor.report import refuse_faulty
from grpo_train.policies.model import load_tokenizer
from grpo_train.policies.tiny_model import build_tiny_tokenizer, save_tiny_model
from tests.paths import TINY

FROZEN = {"kind": "frozen", "path": "reward"}
BEGUN = {"kind": "trained", "labeler": {"kind": "score"}, "backbone": {"path": "backbone"}}


@pytest.fixture
def models(workspace: Path) -> Path:
    """The folders policy, backbone and reward with whole models."""
    save_tiny_model(Path("policy"))
    save_tiny_model(Path("backbone"))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=101, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, num_labels=1
    )
    AutoModelForSequenceClassification.from_config(config).save_pretrained("reward")
    build_tiny_tokenizer().save_pretrained("reward")
    return workspace


def configured(workspace: Path, reward_model: dict[str, Any]) -> Path:
    data = yaml.safe_load(TINY.read_text())
    data["policy"] = {"path": "policy"}
    data["reward_models"] = {"taste": reward_model}
    data["rewards"] = [
        {"name": "right", "kind": "outcome"},
        {"name": "taste", "kind": "reward_model", "model": "taste"},
    ]
    (workspace / "mine.yaml").write_text(yaml.safe_dump(data))
    return workspace / "mine.yaml"


def change(folder: str, changed: Callable[[str], str | None]) -> None:
    """Rename the weights in a folder; None leaves one out."""
    file = Path(folder) / "model.safetensors"
    weights = {new: weight.clone() for name, weight in load_file(file).items() if (new := changed(name)) is not None}
    save_file(weights, file, metadata={"format": "pt"})


@pytest.mark.parametrize("reward_model", [FROZEN, BEGUN], ids=["frozen", "begun"])
def test_whole_models_pass(reward_model: dict[str, Any], models: Path) -> None:
    refuse_faulty(load_config(configured(models, reward_model)), models)


@pytest.mark.parametrize(
    ("folder", "changed", "told"),
    [
        ("policy", lambda name: None if "layers.1." in name else name, r"model: policy\.path: policy lacks 9 of the 21"),
        ("policy", lambda name: f"module.{name}", r"policy\.path: policy lacks 21 .* 'module\.' in them"),
        ("reward", lambda name: name.replace("score", "v_head"), r"reward_models\.taste\.path: reward lacks 1 .*score\.weight"),
        ("reward", lambda name: f"_orig_mod.{name}", r"reward_models\.taste\.path: .* '_orig_mod\.' in them, which torch\.compile"),
        ("backbone", lambda name: f"base_model.model.{name}", r"reward_models\.taste\.backbone\.path: .* 'base_model\.model\.'"),
        ("backbone", lambda name: None if "norm" in name else name, r"reward_models\.taste\.backbone\.path: backbone lacks 5"),
    ],
)  # fmt: skip
def test_a_model_that_is_not_whole_ends_the_run_before_it_begins(
    folder: str, changed: Callable[[str], str | None], told: str, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its missing weights were drawn at random: the run ended with exit code 0, and what it had trained was noise."""
    change(folder, changed)
    config = configured(models, FROZEN if folder == "reward" else BEGUN)
    with pytest.raises(ConfigError, match=told):
        refuse_faulty(load_config(config), models)
    assert main(["run", str(config)]) == 2
    assert main(["doctor", str(config), "--no-sample"]) == 2
    assert not Path("runs").exists()


def test_a_champion_that_is_not_whole_is_not_exported(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "champion_of", lambda root, name: Policy(path="policy", id="p", round=0))
    change("policy", lambda name: None if name == "lm_head.weight" else name)
    with pytest.raises(ConfigError, match=r"policy lacks 1 of the 21 weights .*: lm_head\.weight"):
        commands.export_champion(models, "mine", Path("exported"))
    assert not Path("exported").exists()


def test_an_adapter_in_the_place_of_a_model_is_told_by_the_field(models: Path) -> None:
    shutil.rmtree("reward")
    Path("reward").mkdir()
    (Path("reward") / "adapter_config.json").write_text('{"base_model_name_or_path": "some/base"}')
    with pytest.raises(
        ConfigError, match=r"reward_models\.taste\.path: reward holds a PEFT adapter, .* load it on some/base"
    ):
        refuse_faulty(load_config(configured(models, FROZEN)), models)


def test_an_exported_tokenizer_decodes_as_was_measured(models: Path) -> None:
    tokenizer = build_tiny_tokenizer()
    tokenizer.clean_up_tokenization_spaces = True
    tokenizer.save_pretrained("policy")
    ids = load_tokenizer("policy")("x != y")["input_ids"]
    assert load_tokenizer("policy").decode(ids) == "x != y"
