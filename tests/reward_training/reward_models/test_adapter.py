"""A reward model's LoRA adapter: which weights it changes, what is saved, and that it learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from configs.errors import ConfigError
from configs.schema.lora import LoraSettings
from reward_training.reward_models.check import check_reward_model
from tests.reward_training.reward_models.test_train import CONFIG, make_pairs, train

ADAPTED = CONFIG.model_copy(update={"lora": LoraSettings(rank=4, alpha=8, target_modules=["q_proj", "v_proj"])})


@pytest.fixture(scope="module")
def adapted(policy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapted")
    train(folder, policy_folder, config=ADAPTED)
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_only_the_named_modules_and_the_head_change_and_the_rest_is_a_plain_classifier(
    adapted: Path, policy_folder: Path, tmp_path: Path
) -> None:
    train(tmp_path, policy_folder)
    assert weights(adapted).keys() == weights(tmp_path).keys()
    before, after = weights(policy_folder), weights(adapted)
    changed = {name for name, value in after.items() if name in before and not torch.equal(value, before[name])}
    assert changed
    assert all(name.endswith(("q_proj.weight", "v_proj.weight")) for name in changed)
    for name in changed:
        assert torch.linalg.matrix_rank(after[name] - before[name], rtol=1e-3) <= 4


def test_an_adapter_learns_the_preference_too(adapted: Path) -> None:
    report = check_reward_model(
        adapted, make_pairs(100, 20), [], config=ADAPTED, num_train_pairs=48, num_replayed_pairs=0, seed=0
    )
    assert report.accuracy is not None
    assert report.accuracy.estimate > 0.9


def test_a_round_may_train_the_merged_model_on_without_an_adapter(adapted: Path, tmp_path: Path) -> None:
    steps = train(tmp_path, adapted)
    assert steps[0]["reward_model/accuracy"] > 0.8


def test_modules_that_are_not_there_are_refused_by_name(policy_folder: Path, tmp_path: Path) -> None:
    wrong = CONFIG.model_copy(update={"lora": LoraSettings(target_modules=["qq_proj"])})
    with pytest.raises(ConfigError, match=r"lora\.target_modules=\['qq_proj'\] does not fit"):
        train(tmp_path, policy_folder, config=wrong)
