from pathlib import Path

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from configs.errors import ConfigError
from grpo_train.policies.tiny_model import build_tiny_model, build_tiny_tokenizer
from reward_training.transformer import saving
from reward_training.transformer.saving import try_saving


@pytest.fixture(scope="module")
def tiny() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    tokenizer = build_tiny_tokenizer()
    return build_tiny_model(tokenizer), tokenizer


def test_trial_leaves_nothing_behind(tiny: tuple[PreTrainedModel, PreTrainedTokenizerBase], tmp_path: Path) -> None:
    try_saving(*tiny, tmp_path / "out")
    try_saving(*tiny, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_model_that_transformers_refuses_to_save_is_refused_by_its_words(
    tiny: tuple[PreTrainedModel, PreTrainedTokenizerBase], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny[0].generation_config, "min_p", 0.1)
    with pytest.raises(ConfigError, match=r"(?s)could be trained but not saved: .*`min_p`"):
        try_saving(*tiny, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_written_is_named(
    tiny: tuple[PreTrainedModel, PreTrainedTokenizerBase], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file/out cannot be written .*work in another folder"):
        try_saving(*tiny, tmp_path / "file" / "out")


def test_full_disk_is_named_with_what_is_needed(
    tiny: tuple[PreTrainedModel, PreTrainedTokenizerBase], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = saving.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(saving.shutil, "disk_usage", lambda folder: full)
    with pytest.raises(ConfigError, match=r"takes 0\.00 GB and .* has 0\.00 GB left"):
        try_saving(*tiny, tmp_path)
