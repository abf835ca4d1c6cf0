"""Ranks that hold parts of a reward model score as one process does that holds it whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from configs.schema.lora import LoraSettings
from configs.schema.reward_models import TrainedRewardModel
from reward_training.reward_models.backbone import load_backbone
from reward_training.reward_models.scores import save_calibration
from reward_training.reward_models.train import train_reward_model
from tests.grpo_train.updating.ranks_kit import finish, start_ranks
from tests.reward_training.reward_models.sharded_program import CASES
from tests.reward_training.reward_models.test_distinct import pair
from tests.tiny_architectures import _sizes, build

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PROGRAM = "tests.reward_training.reward_models.sharded_program"
CONVERSATIONS = [f"Say {n}" + " again" * (n * n % 11) for n in range(9)]
FROZEN = ("llama", "qwen3_moe", "gpt2", "roberta")
"""rows that share beginnings; experts that are joined on loading; layers of another name; an encoder with a head of two layers"""
OURS = ("granite", "gemma3n_text")
"""with a head of ours on a language model's decoder; rows of the second are plain, and each is a run"""
SHARES: dict[int, list[list[str]]] = {
    1: [CONVERSATIONS],
    2: [CONVERSATIONS[:7], CONVERSATIONS[7:]],
    3: [CONVERSATIONS[:1], [], CONVERSATIONS[1:]],
}
"""by number of ranks: unequal numbers of batches, and a rank without a conversation"""
Told = dict[str, list[dict[str, Any]]]
"""by case, what each rank told"""


def save_frozen(kind: str, folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(0)
    sizes = _sizes(kind) | {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    sizes |= {"num_labels": 1} | ({"is_decoder": False} if kind == "roberta" else {})
    model = AutoModelForSequenceClassification.from_config(CONFIG_MAPPING[kind](**sizes), dtype=torch.float32)
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))


def save_with_our_head(kind: str, folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    build(kind).save_pretrained(str(folder))
    model = load_backbone(folder, seed=1)
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))


def train_with_an_adapter(base: Path, folder: Path) -> None:
    """A reward model as a round trains it with `lora`, calibrated."""
    settings = TrainedRewardModel.model_validate(
        {"labeler": {"kind": "score"}, "batch_size": 4, "learning_rate": 1e-2,
         "lora": LoraSettings(rank=2, target_modules="all-linear")}
    )  # fmt: skip
    pairs = [pair("7" * (1 + i % 3), "0" * (1 + i % 2), prompt=f"Say {i}") for i in range(8)]
    options: dict[str, Callable[..., Any]] = {"on_step": lambda *_: None, "should_stop": lambda: False}
    train_reward_model(pairs, base=base, out_dir=folder, config=settings, seed=0, **options)


@pytest.fixture(scope="module")
def models(
    tokenizer: PreTrainedTokenizerFast, policy_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("reward_models")
    for kind in FROZEN:
        save_frozen(kind, root / kind, tokenizer)
    for kind in OURS:
        save_with_our_head(kind, root / kind, tokenizer)
    save_calibration(root / "granite", [1.0, 5.0])
    train_with_an_adapter(policy_folder, root / "adapter")
    return {name: root / name for name in (*FROZEN, *OURS, "adapter")}


def scored(folder: Path, models: dict[str, Path], num_ranks: int) -> Told:
    """What each rank told of each model; "auto" is a model in the arithmetic that the hardware has."""
    cases = {
        name: {"model": str(path), "shares": SHARES[num_ranks], "precision": "float32"}
        for name, path in models.items()
        if name != "qwen3_moe" or num_ranks != 3
    }
    cases["auto"] = cases["llama"] | {"precision": "auto"}
    (folder / CASES).write_text(json.dumps(cases), encoding="utf-8")
    finish(start_ranks(PROGRAM, folder, num_ranks), timeout_s=300)
    by_rank = [json.loads((folder / f"rank_{i}.json").read_bytes()) for i in range(num_ranks)]
    return {name: [told[name] for told in by_rank] for name in cases}


@pytest.fixture(scope="module")
def one(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Told:
    return scored(tmp_path_factory.mktemp("one"), models, 1)


@pytest.fixture(scope="module", params=[2, 3])
def several(request: pytest.FixtureRequest, models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Told:
    return scored(tmp_path_factory.mktemp("several"), models, request.param)


def test_ranks_score_as_one_process_does_each_time(one: Told, several: Told) -> None:
    """One rank has more batches than another, and one of three has none; before each layer all wait for one another."""
    for name, ranks in several.items():
        [expected] = one[name]
        assert len(set(expected["scores"][0])) > 5, name
        for time in (0, 1):
            found = [score for told in ranks for score in told["scores"][time]]
            # bfloat16 products of rows that are laid out otherwise differ
            assert found == pytest.approx(expected["scores"][0], abs=0.05 if name == "auto" else 1e-5), name


def test_the_parts_of_the_ranks_are_the_whole_model_and_none_holds_it(one: Told, several: Told) -> None:
    for name, ranks in several.items():
        held, [whole] = [told["held"] for told in ranks], [told["held"] for told in one[name]]
        assert sum(held) == whole, name
        # a weight of one row, such as the head's, has one owner: small models are not split evenly
        assert max(held) < 1.2 * whole / len(ranks), name
