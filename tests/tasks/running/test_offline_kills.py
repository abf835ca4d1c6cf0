"""A policy that learns from samples which are there before training is killed by SIGKILL, and ends as if it had not been."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

import configs.disk.checkpoints
import tasks.running.stage
import tasks.stages.lessons as lessons
import tasks.stages.offline_policy as offline_policy
import tasks.stages.policy as policy_stage
from configs.disk.checkpoints import saved_steps
from configs.disk.files import Journal, digest
from configs.records import Policy
from grpo_train.policies.model import open_policy
from grpo_train.policies.tiny_model import save_tiny_model
from tests.tasks.offline_samples import best_spec, offline_spec
from tests.tasks.running.kills import KILLED, arm, in_child, tear
from tests.tasks.running.test_kills import Stage, armed_attempt, finish

METHODS = {
    "dpo": ("kind: dpo",),
    "ipo": ("kind: ipo",),
    "dpo with an adapter": ("kind: dpo", "grpo_config.lora={rank: 2, between_rounds: carry_on}"),
}


BEST_OF_N = Stage("policy", best_spec, policy_stage.body)


def stage_of(method: str) -> Stage:
    return Stage("policy", lambda given, root: offline_spec(given, root, *METHODS[method]), policy_stage.body)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    folder = tmp_path_factory.mktemp("given") / "policy"
    save_tiny_model(folder)
    return open_policy(folder, 0)


def ended(stage: Stage, root: Path) -> SimpleNamespace:
    outcome, folder = stage.outcome(root), stage.folder(root)
    adapters = [digest(path) for path in folder.glob("adapter/*.safetensors")]
    return SimpleNamespace(**vars(outcome), pairs=digest(folder / "training_pairs.jsonl"), adapters=adapters)


@pytest.fixture(scope="module")
def undisturbed(given: Policy, tmp_path_factory: pytest.TempPathFactory) -> dict[str, SimpleNamespace]:
    outcomes = {}
    for method in METHODS:
        root, stage = tmp_path_factory.mktemp("undisturbed"), stage_of(method)
        assert in_child(lambda stage=stage, root=root: stage.attempt(given, root)) == 0
        outcomes[method] = ended(stage, root)
    return outcomes


POINTS: dict[str, tuple[Callable[[], None], list[int]]] = {
    "before the first update": (lambda: arm(offline_policy, "load_policy"), []),
    "between a step and its journal": (lambda: arm(Journal, "write", 6), [2, 4]),  # the first has the counts of pairs
    "half-way in a journal line": (lambda: tear(Journal, "write", lambda journal, *_: journal.path, 4), [2]),
    "half-way in a checkpoint": (lambda: arm(configs.disk.checkpoints, "digest_files", 2), [2]),
    "after a checkpoint got its name": (lambda: arm(Path, "rename", 2, "after"), [2, 4]),
    "before the model is saved": (lambda: arm(offline_policy, "save_policy"), [2, 4]),
    "before the manifest": (lambda: arm(tasks.running.stage, "write_manifest"), [2, 4]),
}
KILLS = [*(("dpo", point) for point in POINTS), *((m, "between a step and its journal") for m in METHODS if m != "dpo")]


@pytest.mark.parametrize(("method", "point"), KILLS)
def test_a_policy_killed_at_a_point_ends_as_if_it_had_not_been(
    given: Policy, tmp_path: Path, undisturbed: dict[str, SimpleNamespace], method: str, point: str
) -> None:
    stage, (load, steps) = stage_of(method), POINTS[point]
    assert in_child(armed_attempt(stage, given, tmp_path, load)) == KILLED
    assert [int(path.name[5:]) for path in saved_steps(stage.folder(tmp_path))] == steps
    finish(stage, given, tmp_path)
    assert ended(stage, tmp_path) == undisturbed[method]
    assert (undisturbed[method].adapters != []) == ("adapter" in method)


@pytest.mark.parametrize(
    ("load", "steps"),
    [
        (lambda: arm(lessons, "score"), []),
        (lambda: arm(Journal, "write", 7), [2, 4]),  # the first two are of the samples
        (lambda: arm(Path, "rename", 2, "after"), [2, 4]),
    ],
    ids=["before the responses are scored", "between a step and its journal", "after a checkpoint got its name"],
)
def test_best_of_n_killed_at_a_point_ends_as_if_it_had_not_been(
    given: Policy, tmp_path: Path, load: Callable[[], None], steps: list[int]
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for root in (whole, killed):
        root.mkdir()
    assert in_child(lambda: BEST_OF_N.attempt(given, whole)) == 0
    assert in_child(armed_attempt(BEST_OF_N, given, killed, load)) == KILLED
    assert [int(path.name[5:]) for path in saved_steps(BEST_OF_N.folder(killed))] == steps
    assert finish(BEST_OF_N, given, killed) == BEST_OF_N.outcome(whole)
    samples = [digest(BEST_OF_N.folder(root) / "completions.jsonl") for root in (whole, killed)]
    assert samples[0] == samples[1]
