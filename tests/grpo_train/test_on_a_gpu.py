"""The policy's side on a GPU: the same mathematics as on a CPU, in float32 and bfloat16, and a training that goes on where it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from transformers import PreTrainedModel

from configs.records import Completion, Policy
from grpo_train.policies.model import save_policy
from reward_training.transformer.precision import autocast_dtype
from tests.grpo_train.conftest import make_problem
from tests.grpo_train.sampling.test_generation import QUESTIONS, draw
from tests.grpo_train.test_resume import EVERYTHING, attempt, same, stopped
from tests.grpo_train.test_trainer import tiny_config
from tests.grpo_train.updating.test_learner import advantages, learner, written_by

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that torch sees"),
]

CPU, GPU = torch.device("cpu"), torch.device("cuda")


class Update(NamedTuple):
    loss: float
    gradient: torch.Tensor


@pytest.fixture
def update(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An update's loss and gradient, of the same responses, on a device."""
    model, _ = tiny
    completions = written_by(model)

    def on(device: torch.device, **settings: Any) -> Update:
        monkeypatch.setattr("grpo_train.updating.ranks.pick_device", lambda: device)
        return _update(model.to(device), completions, settings)

    return on


def _update(model: PreTrainedModel, completions: list[Completion], settings: dict[str, Any]) -> Update:
    held: list[torch.Tensor] = []
    student = learner(model, **settings)
    student.optimizer.register_step_pre_hook(
        lambda *_: held.extend(weight.grad.flatten().cpu() for weight in model.parameters() if weight.grad is not None)
    )
    loss = student.update(completions, advantages())["policy/loss"]
    assert student.model.device.type == student.ranks.device.type
    return Update(loss, torch.cat(held))


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize(
    "settings",
    [{}, {"activation_checkpointing": True}, {"loss": "dapo", "updates_per_batch": 1}, {"micro_batch_tokens": 24}],
    ids=lambda settings: ", ".join(settings) or "plain",
)
def test_a_float32_update_is_the_cpus(update: Any, settings: dict[str, Any]) -> None:
    here, there = update(GPU, **settings), update(CPU, **settings)
    assert here.loss == pytest.approx(there.loss, abs=1e-5)
    assert apart(here.gradient, there.gradient) < 1e-4


def test_a_bfloat16_update_is_the_cpus_within_its_rounding(update: Any) -> None:
    exact = update(CPU)
    for device in (GPU, CPU):
        rounded = update(device, precision="bfloat16")
        assert rounded.loss == pytest.approx(exact.loss, abs=2e-2)
        assert 0 < apart(rounded.gradient, exact.gradient) < 5e-2


def test_a_gpu_picks_bfloat16() -> None:
    assert autocast_dtype("auto", GPU) == torch.bfloat16


def test_the_same_draws_write_the_same(tiny: Any) -> None:
    """Each response has its own numbers to draw by, so a device changes nothing but rounding."""
    model, tokenizer = tiny
    problems = [make_problem(question) for question in QUESTIONS]
    there = draw((model, tokenizer), problems)
    here = draw((model.to(GPU), tokenizer), problems)
    greedy = [draw((model.to(device), tokenizer), problems, group_size=1, temperature=0.0) for device in (GPU, CPU)]
    assert [c.token_ids for c in here] == [c.token_ids for c in there]
    assert [c.token_ids for c in greedy[0]] == [c.token_ids for c in greedy[1]]
    for one, other in zip(here, there, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_stopped_training_goes_on_as_if_it_had_not_been(tiny: Any, tmp_path: Path, precision: str) -> None:
    policy: Policy = save_policy(*tiny, tmp_path / "policy", round_index=0)
    settings = (*EVERYTHING, f"grpo_config.precision={precision}", "grpo_config.deterministic=true")
    config = tiny_config(*settings)
    undisturbed = attempt(policy, config, None)
    stopped(policy, config, tmp_path / "stage", after=3)
    resumed = attempt(policy, config, tmp_path / "stage")
    assert [step.step for step in resumed.steps] == [4, 5, 6, 7]
    assert same(undisturbed, resumed)
