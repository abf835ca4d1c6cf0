"""A stage that trains is killed by SIGKILL, at named points and at random times, and ends as if it had not been."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

import configs.disk.checkpoints
import configs.disk.files
import grpo_train.rollouts
import grpo_train.updating.checkpoint
import grpo_train.updating.critic
import grpo_train.updating.learner
import tasks.running.stage
import tasks.stages.policy as policy_stage
import tasks.stages.reward_model as reward_model_stage
from configs.disk.checkpoints import saved_steps
from configs.disk.files import OF_PROCESS, Journal, digest, weights_id, write_jsonl
from configs.records import Policy, PreferencePair
from grpo_train.policies.model import open_policy
from grpo_train.policies.tiny_model import save_tiny_model
from tasks.running.stage import run_stage
from tasks.running.stage_spec import StageSpec
from tasks.runs.history import ModelRef
from tasks.stages.policy import PolicySpec
from tasks.stages.reward_model import RewardModelSpec
from tests.tasks.running.kills import KILLED, arm, in_child, remove_half, tear
from tests.tasks.stage_kit import open_untold, tiny, write_samples, write_sums


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    folder = tmp_path_factory.mktemp("given") / "policy"
    save_tiny_model(folder)
    return open_policy(folder, 0)


def policy_spec(given: Policy, root: Path, *changes: str) -> PolicySpec:
    """Eight updates, each with a gradient, with checkpoints after 2, 4 and 6; with response cache, curriculum and refill."""
    problems = write_sums(root)
    config = tiny(
        "rewards=[{name: brief, kind: length, target: 2, limit: 16}, {name: digits, kind: format, pattern: '[0-9]'}]",
        "reward_models={}",
        "evaluation.checker=digits",
        "grpo_config.max_updates=8",
        "grpo_config.epochs=4",
        "grpo_config.schedule=linear",
        "grpo_config.save_steps=2",
        "grpo_config.response_cache={share: 0.5, min_effective_share: 0}",
        "grpo_config.refill=1",
        "curriculum={kind: band}",
        *changes,
    )
    return PolicySpec(
        config=config, round=1, policy=given, initial_policy=given, problems=str(problems), reward_models={}
    )


def reward_model_spec(given: Policy, root: Path) -> RewardModelSpec:
    """Six updates, with checkpoints after 2 and 4."""
    pairs = [
        PreferencePair(
            problem_key=f"{i}", prompt=[{"role": "user", "content": f"say {i}"}], chosen=f"z{i % 7}", rejected=f"q{i % 5}",
            margin=1.0, objective="taste", labeler="score", sources=("a", "b"), round=0, split="held_out" if i < 8 else "train",
        )
        for i in range(56)
    ]  # fmt: skip
    write_jsonl(root / "pairs.jsonl", pairs)
    config = tiny("reward_models.taste.save_steps=2", "reward_models.taste.batch_size=8")
    base = ModelRef(id=given.id, path=given.path)
    files = [str(root / "pairs.jsonl")]
    return RewardModelSpec(config=config, round=1, name="taste", base=base, new_pairs=files, earlier_pairs=[])


class Stage(NamedTuple):
    """A kind of stage and how one is made."""

    name: str
    spec_of: Callable[[Policy, Path], StageSpec]
    body: Callable[..., None]

    def folder(self, root: Path) -> Path:
        return root / "runs" / "tiny" / "round_001" / self.name

    def attempt(self, given: Policy, root: Path) -> None:
        run_stage(open_untold(root), self.spec_of(given, root), self.folder(root), self.body)

    def outcome(self, root: Path) -> SimpleNamespace:
        """All that two runs have to have in common, to the bit."""
        folder = self.folder(root)
        lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
        rest = [path for name in ("rollouts.jsonl", "result.json", "report.json") if (path := folder / name).exists()]
        return SimpleNamespace(
            weights=weights_id(folder / "model"),
            journal=[
                (line["key"], line["step"], line["value"]) for line in lines if not line["key"].startswith(OF_PROCESS)
            ],
            files={path.name: path.read_bytes() for path in rest},
        )


POLICY = Stage("policy", policy_spec, policy_stage.body)
REWARD_MODEL = Stage("reward_model/taste", reward_model_spec, reward_model_stage.body)


@pytest.fixture(scope="module")
def undisturbed(given: Policy, tmp_path_factory: pytest.TempPathFactory) -> dict[str, SimpleNamespace]:
    """What each stage ends with where nobody kills it."""
    outcomes = {}
    for stage in (POLICY, REWARD_MODEL):
        root = tmp_path_factory.mktemp("undisturbed")
        assert in_child(lambda stage=stage, root=root: stage.attempt(given, root)) == 0
        outcomes[stage.name] = stage.outcome(root)
    return outcomes


def armed_attempt(stage: Stage, given: Policy, root: Path, load: Callable[[], None]) -> Callable[[], None]:
    def work() -> None:
        load()
        stage.attempt(given, root)

    return work


def finish(stage: Stage, given: Policy, root: Path) -> SimpleNamespace:
    assert in_child(lambda: stage.attempt(given, root)) == 0
    assert saved_steps(stage.folder(root)) == []
    return stage.outcome(root)


def _journal_path(journal: Journal, *_: Any) -> Path:
    return journal.path


POLICY_POINTS: dict[str, tuple[Callable[[], None], list[int]]] = {
    "before anything is written": (lambda: arm(Journal, "write"), []),
    "while a group is sampled": (lambda: arm(grpo_train.rollouts, "sample", 4), [2]),
    "between two updates of the weights": (
        lambda: arm(grpo_train.updating.learner.Learner, "_refresh_actor", 6),
        [2, 4],
    ),
    "between update and journal": (lambda: arm(grpo_train.updating.learner.Learner, "update", 3, "after"), [2]),
    "half-way in a journal line": (lambda: tear(Journal, "write", _journal_path, 4), [2]),
    "between journal and rollouts": (lambda: arm(policy_stage, "append_jsonl", 5), [2, 4]),
    "half-way in the rollouts": (lambda: tear(policy_stage, "append_jsonl", lambda path, _: path, 7), [4, 6]),
    "half-way in a checkpoint": (lambda: arm(grpo_train.updating.checkpoint, "save_file", 4), [2]),
    "before a checkpoint is sealed": (lambda: arm(configs.disk.checkpoints, "digest_files", 1), []),
    "before a checkpoint gets its name": (lambda: arm(Path, "rename", 2), [2]),
    "after a checkpoint got its name": (lambda: arm(Path, "rename", 3, "after"), [2, 4, 6]),
    "half-way in dropping the oldest": (lambda: remove_half(configs.disk.checkpoints.shutil, "rmtree"), [2, 4, 6]),
    "before the model is saved": (lambda: arm(policy_stage, "save_policy"), [4, 6]),
    "before the manifest": (lambda: arm(tasks.running.stage, "write_manifest"), [4, 6]),
    "after the manifest": (lambda: arm(tasks.running.stage, "discard_checkpoints"), [4, 6]),
}


@pytest.mark.parametrize("point", POLICY_POINTS)
def test_a_policy_killed_at_a_point_ends_as_if_it_had_not_been(
    given: Policy, tmp_path: Path, undisturbed: dict[str, SimpleNamespace], point: str
) -> None:
    load, steps = POLICY_POINTS[point]
    assert in_child(armed_attempt(POLICY, given, tmp_path, load)) == KILLED
    assert [int(path.name[5:]) for path in saved_steps(POLICY.folder(tmp_path))] == steps
    assert finish(POLICY, given, tmp_path) == undisturbed["policy"]


def test_a_policy_with_an_adapter_killed_between_checkpoints_ends_as_if_it_had_not_been(
    given: Policy, tmp_path: Path
) -> None:
    lora = "grpo_config.lora={rank: 2, between_rounds: carry_on}"
    stage = Stage("policy", lambda given, root: policy_spec(given, root, lora), policy_stage.body)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for root in (whole, killed):
        root.mkdir()
    assert in_child(lambda: stage.attempt(given, whole)) == 0
    load = POLICY_POINTS["between journal and rollouts"][0]
    assert in_child(armed_attempt(stage, given, killed, load)) == KILLED
    assert finish(stage, given, killed) == stage.outcome(whole)
    adapters = [stage.folder(root) / "adapter/adapter_model.safetensors" for root in (whole, killed)]
    assert digest(adapters[0]) == digest(adapters[1])


PPO_POINTS: dict[str, Callable[[], None]] = {
    "in the warm-up": lambda: arm(grpo_train.updating.critic.Critic, "_update", 2),
    "between the policy's update and the value model's": lambda: arm(grpo_train.updating.critic.Critic, "learn", 3),
    "half-way in the value model's checkpoint": lambda: arm(grpo_train.updating.checkpoint, "save_file", 7),
    "between journal and rollouts": POLICY_POINTS["between journal and rollouts"][0],
}


def ppo_spec(given: Policy, root: Path) -> PolicySpec:
    """The same by PPO, with two updates on a batch, after a warm-up of three."""
    spec = policy_spec(
        given,
        root,
        "method={kind: ppo, value_learning_rate: 1e-3, value_warmup_updates: 3}",
        "grpo_config.max_updates=12",
        "grpo_config.updates_per_batch=2",
        "grpo_config.refill=0",
        "grpo_config.response_cache={}",
    )
    return spec.model_copy(update={"samples": write_samples(root, given)})


PPO = Stage("policy", ppo_spec, policy_stage.body)


@pytest.fixture(scope="module")
def undisturbed_ppo(given: Policy, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    root = tmp_path_factory.mktemp("ppo")
    assert in_child(lambda: PPO.attempt(given, root)) == 0
    return PPO.outcome(root)


@pytest.mark.parametrize("point", PPO_POINTS)
def test_a_policy_trained_by_ppo_killed_at_a_point_ends_as_if_it_had_not_been(
    given: Policy, tmp_path: Path, undisturbed_ppo: SimpleNamespace, point: str
) -> None:
    assert in_child(armed_attempt(PPO, given, tmp_path, PPO_POINTS[point])) == KILLED
    assert finish(PPO, given, tmp_path) == undisturbed_ppo
    assert {"value/loss", "value/explained_variance"} <= {key for key, *_ in undisturbed_ppo.journal}


REWARD_MODEL_POINTS: dict[str, Callable[[], None]] = {
    "between a step and its journal": lambda: arm(Journal, "write", 4),
    "half-way in a journal line": lambda: tear(Journal, "write", _journal_path, 3),
    "half-way in a checkpoint": lambda: arm(configs.disk.checkpoints, "digest_files", 2),
    "after a checkpoint got its name": lambda: arm(Path, "rename", 2, "after"),
    "before the check": lambda: arm(reward_model_stage, "check_reward_model"),
}


@pytest.mark.parametrize("point", REWARD_MODEL_POINTS)
def test_a_reward_model_killed_at_a_point_ends_as_if_it_had_not_been(
    given: Policy, tmp_path: Path, undisturbed: dict[str, SimpleNamespace], point: str
) -> None:
    assert in_child(armed_attempt(REWARD_MODEL, given, tmp_path, REWARD_MODEL_POINTS[point])) == KILLED
    assert len(saved_steps(REWARD_MODEL.folder(tmp_path))) >= 1
    assert finish(REWARD_MODEL, given, tmp_path) == undisturbed["reward_model/taste"]


def test_killed_while_going_back_to_a_checkpoint(
    given: Policy, tmp_path: Path, undisturbed: dict[str, SimpleNamespace]
) -> None:
    first = armed_attempt(POLICY, given, tmp_path, lambda: arm(policy_stage, "append_jsonl", 6))
    assert in_child(first) == KILLED
    second = armed_attempt(POLICY, given, tmp_path, lambda: arm(configs.disk.checkpoints.os, "truncate", 1, "after"))
    assert in_child(second) == KILLED
    assert finish(POLICY, given, tmp_path) == undisturbed["policy"]


def test_killed_at_random_times(given: Policy, tmp_path: Path, undisturbed: dict[str, SimpleNamespace]) -> None:
    """Until it gets through; what a kill costs is bounded, so it gets further each time."""
    draw = random.Random(0)
    codes = [in_child(lambda: POLICY.attempt(given, tmp_path), kill_after_s=draw.uniform(0.1, 0.6)) for _ in range(4)]
    assert set(codes) <= {KILLED, 0}
    assert finish(POLICY, given, tmp_path) == undisturbed["policy"]


def cut_nothing() -> None:
    setattr(configs.disk.checkpoints.os, "truncate", lambda path, length: None)  # noqa: B010


def test_a_folder_that_is_not_cut_at_the_checkpoint_ends_otherwise(
    given: Policy, tmp_path: Path, undisturbed: dict[str, SimpleNamespace]
) -> None:
    load = armed_attempt(POLICY, given, tmp_path, lambda: arm(policy_stage, "append_jsonl", 4, "after"))
    assert in_child(load) == KILLED
    assert in_child(armed_attempt(POLICY, given, tmp_path, cut_nothing)) == 0
    ended = POLICY.outcome(tmp_path)
    assert ended.weights == undisturbed["policy"].weights
    assert ended.journal != undisturbed["policy"].journal
    assert ended.files["rollouts.jsonl"] != undisturbed["policy"].files["rollouts.jsonl"]


def test_a_torn_checkpoint_costs_more_steps_and_nothing_else(
    given: Policy, tmp_path: Path, undisturbed: dict[str, SimpleNamespace]
) -> None:
    assert in_child(armed_attempt(POLICY, given, tmp_path, lambda: arm(Journal, "write", 6))) == KILLED
    newest = saved_steps(POLICY.folder(tmp_path))[-1]
    assert newest.name == "step_000004"
    (newest / "weights.safetensors").write_bytes(b"torn")
    assert finish(POLICY, given, tmp_path) == undisturbed["policy"]


def test_other_inputs_start_over(given: Policy, tmp_path: Path, undisturbed: dict[str, SimpleNamespace]) -> None:
    assert in_child(armed_attempt(POLICY, given, tmp_path, lambda: arm(Journal, "write", 4))) == KILLED
    other = policy_spec(given, tmp_path)
    changed = other.config.model_copy(update={"seed": 1})
    spec = other.model_copy(update={"config": changed})
    folder = POLICY.folder(tmp_path)
    assert in_child(lambda: run_stage(open_untold(tmp_path), spec, folder, policy_stage.body)) == 0
    assert POLICY.outcome(tmp_path).journal[0][1] == 1
    assert POLICY.outcome(tmp_path) != undisturbed["policy"]
