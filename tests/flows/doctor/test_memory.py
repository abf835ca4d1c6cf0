"""Memory and disk that the doctor expects, by what has a gradient and what is held."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn
from transformers import LlamaConfig

import flows.doctor.resources as doctor_resources
from flows.doctor.resources import check_disk, check_memory, memory_needed
from grpo_train.policies.tiny_model import build_tiny_model, build_tiny_tokenizer, save_tiny_model
from tests.flows.doctor.conftest import Configure

SETTINGS = LlamaConfig(vocab_size=100, hidden_size=64, num_hidden_layers=2, num_attention_heads=4)
RANK = 2


def size_of_adapter() -> int:
    """Of every linear layer except the output layer: rank x (inputs + outputs)."""
    modules = build_tiny_model(build_tiny_tokenizer()).named_modules()
    linear = [module for name, module in modules if isinstance(module, nn.Linear) and name != "lm_head"]
    return sum(RANK * (module.in_features + module.out_features) for module in linear)


def test_beside_an_adapter_a_weight_has_neither_gradient_nor_moments(configure: Configure) -> None:
    """A low-rank adapter was taken to need as much as all weights: runs that fit were refused."""
    needed = memory_needed(configure(), 1000, SETTINGS, low_precision=False, num_trained=30)
    assert needed["training"] == 4 * 1000 + 16 * 30
    assert memory_needed(configure(), 1000, SETTINGS, low_precision=False, num_trained=1000)["training"] == 16 * 1000


def test_the_adapter_of_the_configuration_is_counted_in_memory_and_the_largest_checkpoint_on_disk(
    configure: Configure, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tiny_model(Path("model"))
    monkeypatch.setattr(doctor_resources, "_memory", lambda device: (1e12, 1e12))
    monkeypatch.setattr(doctor_resources, "GB", 1.0)
    plain, adapted = configure(), configure(grpo_config={"lora": {"rank": RANK}})
    whole, parts = (float(check_memory(config, Path("model")).detail.split()[1]) for config in (plain, adapted))
    assert whole - parts == 12 * 86_976 - 16 * size_of_adapter()
    # as test_disk_that_is_too_small_fails: the reward model is trained whole, and its checkpoints are the largest
    needed = 5 * 4 * 86_976 + 3 * 12 * 86_976
    for free, status in ((needed, "ok"), (needed - 1, "fail")):
        usage = type("Usage", (), {"free": free})
        monkeypatch.setattr("shutil.disk_usage", lambda path, usage=usage: usage)
        assert check_disk(adapted, Path("model"), Path()).status == status


@pytest.mark.parametrize(
    ("method", "held"),
    [({"kind": "grpo"}, 1), ({"kind": "dpo"}, 0), ({"kind": "best_of_n", "mode": "offline"}, 0)],
)
def test_a_method_whose_samples_are_there_before_measures_no_kl_curve(
    method: dict[str, Any], held: int, configure: Configure
) -> None:
    """tiny.yaml measures the KL from the initial policy, which a training that samples holds in memory."""
    needed = memory_needed(configure(method=method), 1000, SETTINGS, low_precision=False)
    assert needed["copies"] == held * 4 * 1000
