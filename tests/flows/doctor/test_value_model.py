"""What the doctor says of a value model: its memory, and a backbone of other tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import LlamaConfig

import flows.doctor.resources as doctor_resources
from flows.doctor.resources import check_disk, check_memory, memory_needed
from flows.doctor.rewards import check_value_model
from flows.doctor.timing import Speed, round_time
from grpo_train.policies.model import load_tokenizer
from grpo_train.policies.tiny_model import save_tiny_model
from tests.flows.doctor.conftest import Configure
from tests.reward_training.rewards.test_model_reward import save_model

SETTINGS = LlamaConfig(vocab_size=100, hidden_size=64, num_hidden_layers=2, num_attention_heads=4)


def taste(backbone: Path | None = None) -> dict[str, object]:
    model: dict[str, object] = {"kind": "trained", "labeler": {"kind": "score"}}
    return model if backbone is None else model | {"backbone": {"path": str(backbone)}}


def test_a_value_model_needs_weight_gradient_and_moments_of_each_parameter(configure: Configure) -> None:
    without = memory_needed(configure(), 1000, SETTINGS, low_precision=False)
    with_one = memory_needed(configure(), 1000, SETTINGS, low_precision=False, num_of_value_model=900)
    assert with_one == without | {"value_model": 16 * 900}


def test_ppo_is_told_to_need_more_memory_and_disk_than_grpo(
    configure: Configure, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tiny_model(Path("model"))
    monkeypatch.setattr(doctor_resources, "_memory", lambda device: (1e12, 1e12))
    monkeypatch.setattr(doctor_resources, "GB", 1.0)
    grpo, ppo = configure(), configure(method={"kind": "ppo"})
    in_bytes = [float(check_memory(config, Path("model")).detail.split()[1]) for config in (grpo, ppo)]
    assert in_bytes[1] - in_bytes[0] == pytest.approx(16 * 86_976)
    on_disk = [float(check_disk(config, Path("model"), workspace).detail.split()[1]) for config in (grpo, ppo)]
    # three checkpoints: one more than is kept
    assert on_disk[1] - on_disk[0] == pytest.approx(3 * 12 * 86_976)


def test_a_value_model_whose_backbone_has_other_tokens_is_refused(configure: Configure) -> None:
    save_tiny_model(Path("model"))
    tokenizer = load_tokenizer("model")
    tokenizer.add_tokens(["<more>"])
    other = save_model(Path("other").absolute(), tokenizer)
    method = {"kind": "ppo", "value_model": "taste"}
    for backbone, status in ((None, "ok"), (Path("model").absolute(), "ok"), (other, "fail")):
        config = configure(method=method, reward_models={"taste": taste(backbone)})
        [finding] = check_value_model(config, Path("model"), load_tokenizer("model"))
        assert finding.status == status, finding
    assert "method.value_model='taste': its tokenizer is not the policy's" in finding.detail


def test_a_value_model_of_the_policy_passes_and_other_methods_have_none(configure: Configure) -> None:
    save_tiny_model(Path("model"))
    tokenizer = load_tokenizer("model")
    [finding] = check_value_model(configure(method={"kind": "ppo"}), Path("model"), tokenizer)
    assert (finding.status, finding.detail) == ("ok", "begins from policy")
    assert list(check_value_model(configure(), Path("model"), tokenizer)) == []


def test_a_value_models_updates_and_values_are_in_the_time_of_a_round(configure: Configure) -> None:
    speed, counts = Speed(1.0, 3.0), {"train": 100, "dev": 10, "test": 10}
    method = {"kind": "ppo", "value_updates": 2, "value_warmup_updates": 5}
    grpo, ppo = (
        round_time(config, speed, counts).seconds["policy"] for config in (configure(), configure(method=method))
    )
    # 6 steps of 16 responses: two updates of 3 s and a forward pass of 1 s each; a warm-up of 5 updates on 16
    assert ppo - grpo == pytest.approx(6 * 16 * (2 * 3 + 1) + 5 * 16 * 3)
