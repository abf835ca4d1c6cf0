"""A tokenizer with more tokens than its model has rows is refused when they are loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from configs.errors import ConfigError
from grpo_train.policies.model import check_policy, load_policy
from grpo_train.policies.tiny_model import build_tiny_tokenizer
from reward_training.reward_models.backbone import check_backbone, check_classifier
from reward_training.reward_models.scores import RewardModelScorer

Grow = Callable[[PreTrainedTokenizerFast], object]


def save(folder: Path, grow: Grow, *, num_rows: int = 101, classifier: bool = False) -> Path:
    tokenizer = build_tiny_tokenizer()
    grow(tokenizer)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=num_rows, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_labels=1,
        pad_token_id=0,
    )  # fmt: skip
    made = AutoModelForSequenceClassification.from_config(config) if classifier else LlamaForCausalLM(config)
    made.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


@pytest.mark.parametrize(
    ("grow", "last", "told"),
    [
        (lambda t: t.add_tokens(["plus"]), 101, r"'plus' has none"),
        (lambda t: t.add_special_tokens({"pad_token": "<padding>"}), 101, r"'<padding>' has none"),
        (lambda t: t.add_tokens(["one", "two", "three", "four"]), 104, r"'one', 'two', 'three' and 1 more have none"),
    ],
)
def test_tokens_without_a_row_are_refused_by_name(grow: Grow, last: int, told: str, tmp_path: Path) -> None:
    """It was an index error inside the model, in the first batch that had one of them."""
    folder = save(tmp_path, grow)
    match = (
        rf"ids up to {last}, and the embedding of its model 101 rows: {told}; .*resize_token_embeddings\({last + 1}\)"
    )
    for load in (lambda: load_policy(folder, device="cpu"), lambda: check_policy(folder)):
        with pytest.raises(ConfigError, match=rf"policy\.path: .*{match}"):
            load()
    with pytest.raises(ConfigError, match=rf"reward_models\.taste\.backbone\.path: .*{match}"):
        check_backbone(folder, "reward_models.taste.backbone.path")


def test_reward_models_are_checked_likewise(tmp_path: Path) -> None:
    folder = save(tmp_path, lambda t: t.add_tokens(["plus"]), classifier=True)
    with pytest.raises(ConfigError, match=r"reward_models\.<name>\.path: .* ids up to 101"):
        RewardModelScorer(folder, max_length=64)
    with pytest.raises(ConfigError, match=r"reward_models\.taste\.path: .* ids up to 101"):
        check_classifier(folder, "reward_models.taste.path")


@pytest.mark.parametrize(
    ("grow", "num_rows"),
    [
        (lambda t: None, 101),
        (lambda t: None, 128),
        (lambda t: t.add_tokens(["plus"]), 102),
        (lambda t: t.add_special_tokens({"additional_special_tokens": ["<image_soft_token>"]}), 101),
    ],
    ids=["equal", "padded rows", "grown", "a placeholder for images, as in Gemma 3's text models"],
)
def test_tokenizers_that_fit_are_loaded(grow: Grow, num_rows: int, tmp_path: Path) -> None:
    folder = save(tmp_path, grow, num_rows=num_rows)
    check_policy(folder)
    load_policy(folder, device="cpu")
