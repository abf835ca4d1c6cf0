"""Training of a reward model that is stopped and resumed ends with the same weights as an uninterrupted one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from configs.disk.checkpoints import SEAL, Checkpoints, saved_steps
from configs.disk.files import weights_id
from configs.errors import StageStopped
from configs.schema.lora import LoraSettings
from configs.schema.reward_models import TrainedRewardModel
from reward_training.reward_models.train import train_reward_model
from tests.reward_training.reward_models.test_train import CONFIG, make_pairs

ADAPTED = CONFIG.model_copy(update={"lora": LoraSettings(rank=2, alpha=4)})
Steps = list[tuple[int, dict[str, float]]]


class Outcome(NamedTuple):
    weights: str
    steps: Steps


@pytest.fixture(scope="module")
def base(policy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy with dropout, so that training draws from torch's generator."""
    folder = tmp_path_factory.mktemp("dropping")
    shutil.copytree(policy_folder, folder, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"attention_dropout": 0.2}))
    return folder


def attempt(
    base: Path, folder: Path, *, stop_after: int = 1000, every: int = 100, config: TrainedRewardModel = CONFIG
) -> Outcome:
    """Train 12 updates, continuing from the newest checkpoint in `folder` as a new process would."""
    torch.manual_seed(stop_after)
    steps: Steps = []
    folder.mkdir(exist_ok=True)
    train_reward_model(
        make_pairs(0, 24),
        base=base,
        out_dir=folder / "model",
        config=config,
        seed=0,
        on_step=lambda step, metrics: steps.append((step, metrics)),
        # asked after each step, before it is told of
        should_stop=lambda: bool(steps) and steps[-1][0] + 1 >= stop_after,
        checkpoints=Checkpoints(folder, fingerprint="work", every=every, keep=2, warn=pytest.fail),
    )
    return Outcome(weights_id(folder / "model"), steps)


def stopped(base: Path, folder: Path, *, after: int) -> None:
    with pytest.raises(StageStopped):
        attempt(base, folder, stop_after=after)
    assert saved_steps(folder)[-1].name == f"step_{after:06d}"


@pytest.fixture(scope="module")
def undisturbed(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return attempt(base, tmp_path_factory.mktemp("undisturbed"))


def test_a_stopped_training_that_goes_on_ends_as_if_it_had_not_been(
    base: Path, tmp_path: Path, undisturbed: Outcome
) -> None:
    stopped(base, tmp_path / "stage", after=3)
    stopped(base, tmp_path / "stage", after=8)
    assert attempt(base, tmp_path / "stage") == Outcome(undisturbed.weights, undisturbed.steps[8:])


def test_an_adapter_that_goes_on_ends_as_if_it_had_not_been_stopped(base: Path, tmp_path: Path) -> None:
    undisturbed = attempt(base, tmp_path / "undisturbed", config=ADAPTED)
    with pytest.raises(StageStopped):
        attempt(base, tmp_path / "stage", stop_after=5, config=ADAPTED)
    again = attempt(base, tmp_path / "stage", config=ADAPTED)
    assert again == Outcome(undisturbed.weights, undisturbed.steps[5:])


def test_a_training_that_is_done_is_not_stopped(base: Path, tmp_path: Path, undisturbed: Outcome) -> None:
    # 12 updates; after the last there is nothing to stop but the saving of the model
    assert attempt(base, tmp_path / "stage", stop_after=12) == undisturbed


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_checkpoint_without_one_of_its_states_ends_elsewhere(
    base: Path, tmp_path: Path, undisturbed: Outcome, name: str
) -> None:
    stopped(base, tmp_path / "stage", after=4)
    leave_out(saved_steps(tmp_path / "stage")[-1], f"checkpoint-4/{name}")
    assert attempt(base, tmp_path / "stage").weights != undisturbed.weights


def leave_out(checkpoint: Path, name: str) -> None:
    """Remove a file and its entry in the seal."""
    (checkpoint / name).unlink()
    seal = json.loads((checkpoint / SEAL).read_text())
    del seal["files"][name]
    (checkpoint / SEAL).write_text(json.dumps(seal))


def test_checkpoints_are_made_in_passing_but_not_after_the_last_step(
    base: Path, tmp_path: Path, undisturbed: Outcome
) -> None:
    # 12 updates: 4, 8, and not 12
    assert attempt(base, tmp_path / "stage", every=4) == undisturbed
    assert [path.name for path in saved_steps(tmp_path / "stage")] == ["step_000004", "step_000008"]
