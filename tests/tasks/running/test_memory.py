"""A stage's peak is its own, whatever the process did before, and models count while they are in use."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch

from grpo_train.policies.model import load_policy
from grpo_train.policies.tiny_model import save_tiny_model
from reward_training.reward_models.backbone import load_backbone
from reward_training.transformer.precision import pick_device
from tasks.running import memory
from tasks.running.memory import Memory

SIZE = 64 * 2**20
on_linux = pytest.mark.skipif(
    not memory._reset_resident() or pick_device().type == "cuda", reason="only Linux resets a process's peak"
)


def take(num_bytes: int) -> None:
    """Have so many bytes more for a moment, by a mapping that is given back."""
    bytearray(num_bytes)


@on_linux
def test_the_peak_is_that_since_the_stage_began() -> None:
    """256 MiB before it are not in it; 64 MiB within it are, and stay when they are free again."""
    take(4 * SIZE)
    stage = Memory()
    before = stage.metrics()["memory/peak_mib"]
    take(SIZE)
    assert stage.metrics()["memory/peak_mib"] - before == pytest.approx(64, abs=4)
    assert Memory().metrics()["memory/peak_mib"] - before == pytest.approx(0, abs=4)


def test_where_the_peak_cannot_be_reset_it_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on macOS, where the process's own peak would be that of all stages before."""
    monkeypatch.setattr(memory, "RESET", tmp_path / "nowhere" / "clear_refs")
    monkeypatch.setattr(memory, "pick_device", lambda: torch.device("cpu"))
    assert set(Memory().metrics()) == {"memory/models"}


def test_a_stages_models_count_until_they_are_let_go_also_under_another_head(tmp_path: Path) -> None:
    """A model that something held before the stage began is not the stage's, and letting it go takes none of its count."""
    save_tiny_model(tmp_path)
    earlier, _ = load_policy(tmp_path, device="cpu")
    stage = Memory()
    assert stage.metrics()["memory/models"] == 0
    policy, _ = load_policy(tmp_path, device="cpu")
    value_model = load_backbone(tmp_path, seed=0)
    assert stage.metrics()["memory/models"] == 2
    assert value_model.get_input_embeddings() is not policy.get_input_embeddings()
    del policy, earlier
    gc.collect()
    assert stage.metrics()["memory/models"] == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that torch sees")
def test_on_a_gpu_the_peak_is_that_of_tensors_since_the_stage_began() -> None:
    torch.empty(4 * SIZE, dtype=torch.uint8, device="cuda")
    stage = Memory()
    before = stage.metrics()["memory/peak_mib"]
    torch.empty(SIZE, dtype=torch.uint8, device="cuda")
    assert stage.metrics()["memory/peak_mib"] - before == 64
