"""A low-rank adapter under each method that samples: it alone moves, and the value model of PPO beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from configs.records import Policy
from configs.schema.grpo import LoraConfig
from grpo_train.policies.adapter import Adapter
from grpo_train.policies.model import load_policy, save_policy
from grpo_train.trainer import train
from grpo_train.updating.critic import ValueModel
from reward_training.reward_models.backbone import load_backbone
from tests.grpo_train.test_trainer import PROBLEMS, Given, fives, tiny_config, weights

METHODS = {
    "grpo": "{kind: grpo}",
    "rloo": "{kind: rloo}",
    "reinforce": "{kind: reinforce, baseline: moving_average}",
    "best_of_n": "{kind: best_of_n}",
    "ppo": "{kind: ppo, value_warmup_updates: 0}",
}


@pytest.fixture
def policy(tiny: Any, tmp_path: Path) -> Policy:
    return save_policy(*tiny, tmp_path / "policy", round_index=0)


@pytest.mark.parametrize("method", METHODS)
def test_of_an_adapter_alone_the_weights_move(policy: Policy, method: str) -> None:
    config = tiny_config(
        f"method={METHODS[method]}", "grpo_config.max_updates=2", "grpo_config.lora={rank: 2, alpha: 4}"
    )
    assert config.grpo_config.lora is not None
    model, tokenizer = load_policy(policy.path, device="cpu")
    given = {name: weight.clone() for name, weight in model.named_parameters()}
    adapter = Adapter(model, LoraConfig(rank=2, alpha=4), seed=0)
    value_model = load_backbone(Path(policy.path), seed=1)
    values_before, steps = weights(value_model), []
    train(
        model,
        tokenizer,
        PROBLEMS,
        policy=policy,
        initial_policy=policy,
        rewards=[Given("fives", 1.0, fives)],
        config=config,
        round_index=1,
        on_step=steps.append,
        value_model=ValueModel(value_model, None) if method == "ppo" else None,
    )
    assert [step.step for step in steps] == [1, 2]
    kept = {name.replace(".base_layer", ""): weight for name, weight in model.named_parameters() if "lora_" not in name}
    assert all(torch.equal(weight, given[name]) for name, weight in kept.items())
    merged = dict(adapter.merge().named_parameters())
    moved = [name for name, weight in merged.items() if not torch.equal(weight, given[name])]
    assert moved
    assert all(".weight" in name and "layers" in name for name in moved)
    assert (not torch.equal(weights(value_model), values_before)) == (method == "ppo")
