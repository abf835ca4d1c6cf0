"""A child job writes what the flow's own process would have written, tells the flow what it does, and stops with it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file

from configs.disk.files import JOURNAL, JournalLine, read_jsonl, weights_id
from configs.errors import ConfigError, JobFailed, StageStopped
from configs.schema.config import LauncherConfig
from grpo_train.policies.model import open_policy
from grpo_train.policies.tiny_model import save_tiny_model
from tasks.running.launcher import command, launched
from tasks.running.stage import ALONE, Context, run_stage
from tasks.stages import policy
from tasks.stages.policy import PolicySpec
from tests.tasks.stage_kit import open_untold, tiny, write_sums

PROCESS = LauncherConfig(kind="process")
TWO_RANKS = LauncherConfig(kind="accelerate", num_processes=2)
REWARDS = "{name: brief, kind: length, target: 2, limit: 16}, {name: digits, kind: format, pattern: '[0-9]'}"
SLOW_REWARD = """
import time

def nothing(problems, completions):
    time.sleep(1.0)
    return [0.0] * len(completions)
"""
"""a step takes longer than it takes to see that one is done"""


class Listener:
    """Progress that is kept."""

    def __init__(self) -> None:
        self.done: list[int] = []

    def set(self, done: int, *, total: int | None = None, unit: str | None = None) -> None:
        self.done.append(done)

    def say(self, note: str) -> None:
        raise AssertionError(note)


def make_spec(root: Path, *changes: str) -> PolicySpec:
    """Four updates on eight problems, in float32."""
    save_tiny_model(root / "given")
    given = open_policy(root / "given", 0)
    problems = write_sums(root)
    config = tiny(
        f"rewards=[{REWARDS}]",
        "reward_models={}",
        "evaluation.checker=digits",
        "grpo_config.max_updates=4",
        "grpo_config.epochs=4",
        "grpo_config.precision=float32",
        "grpo_config.save_steps=1",
        *changes,
    )
    return PolicySpec(
        config=config, round=1, policy=given, initial_policy=given, problems=str(problems), reward_models={}
    )


def kill_rank_1() -> None:
    for child in psutil.Process().children(recursive=True):
        if "tasks.job" in child.cmdline() and child.environ().get("RANK") == "1":
            child.send_signal(signal.SIGKILL)


def by_step(folder: Path, key: str) -> list[float]:
    return [entry.value for entry in read_jsonl(folder / JOURNAL, JournalLine) if entry.key == key]


def assert_moved_alike(given: Path, one: Path, two: Path) -> None:
    """From the given weights, up to a thousandth of the way: Adam turns rounding into steps where a gradient is nearly 0."""
    start, first, second = (load_file(folder / "model.safetensors") for folder in (given, one, two))
    moved = sum(float((first[name] - start[name]).norm() ** 2) for name in start)
    apart = sum(float((first[name] - second[name]).norm() ** 2) for name in start)
    assert moved > 0
    assert apart < 1e-6 * moved


def test_a_child_writes_the_same_weights_and_tells_of_each_step(tmp_path):
    spec, listener, written = make_spec(tmp_path), Listener(), []
    for name in ("inline", "child"):
        (tmp_path / name).mkdir()
    policy.body(spec, tmp_path / "inline")
    context = Context(written=lambda: written.append(1), progress=listener)
    launched(PROCESS, "policy", policy.body)(spec, tmp_path / "child", context)
    assert weights_id(tmp_path / "child/model") == weights_id(tmp_path / "inline/model")
    assert by_step(tmp_path / "child", "policy/loss") == by_step(tmp_path / "inline", "policy/loss")
    assert listener.done == [1, 2, 3, 4]
    assert len(written) == 4


def test_errors_come_back_as_what_they_were(tmp_path):
    spec = make_spec(tmp_path)
    out_dir = tmp_path / "policy"
    out_dir.mkdir()
    broken = spec.model_copy(update={"policy": spec.policy.model_copy(update={"path": str(tmp_path / "gone")})})
    with pytest.raises(ConfigError, match="gone holds no tokenizer"):
        launched(PROCESS, "policy", policy.body)(broken, out_dir, ALONE)
    with pytest.raises(StageStopped, match="stopped before step 1 of 4"):
        launched(PROCESS, "policy", policy.body)(spec, out_dir, Context(should_stop=lambda: True))


def test_inline_is_the_body_itself_and_ranks_are_for_the_policy_alone(tmp_path):
    assert launched(LauncherConfig(), "policy", policy.body) is policy.body
    with_file = LauncherConfig(kind="accelerate", num_processes=4, config_file="cluster.yaml")
    assert command(TWO_RANKS, "policy", tmp_path)[2:] == [
        "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "tasks.job", str(tmp_path)
    ]  # fmt: skip
    assert command(with_file, "policy", tmp_path)[2:] == [
        "accelerate.commands.launch", "--config_file", "cluster.yaml", "--num_processes", "4",
        "--module", "tasks.job", str(tmp_path),
    ]  # fmt: skip
    assert command(TWO_RANKS, "reward_model", tmp_path)[2:] == ["tasks.job", str(tmp_path)]


def test_more_than_one_process_needs_the_kind_that_has_them():
    with pytest.raises(ValueError, match=r"num_processes=2 .* need kind accelerate, not process"):
        LauncherConfig(kind="process", num_processes=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        (),
        ("grpo_config.kl_coefficient=0.1", "grpo_config.updates_per_batch=2", "grpo_config.refill=1"),
        ("grpo_config.response_cache={share: 0.5, min_effective_share: 0}", "grpo_config.loss=dapo"),
        ("grpo_config.lora={rank: 4}", "grpo_config.activation_checkpointing=true"),
    ],
)
def test_two_ranks_make_the_update_of_one_process(tmp_path, changes):
    spec = make_spec(tmp_path, *changes)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    policy.body(spec, tmp_path / "one")
    launched(TWO_RANKS, "policy", policy.body)(spec, tmp_path / "two", ALONE)
    for key in ("policy/loss", "policy/grad_norm", "reward/mean", "tokens/generated", "policy/kl_initial"):
        one, two = by_step(tmp_path / "one", key), by_step(tmp_path / "two", key)
        assert one
        assert two == pytest.approx(one, rel=1e-4, abs=1e-6), key
    assert_moved_alike(tmp_path / "given", tmp_path / "one/model", tmp_path / "two/model")


@pytest.mark.slow
def test_a_killed_rank_fails_the_stage_clearly_and_it_goes_on_from_its_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slow.py").write_text(SLOW_REWARD)
    spec, run = (
        make_spec(tmp_path, f"rewards=[{REWARDS}, {{name: slow, kind: python, function: 'slow:nothing'}}]"),
        open_untold(tmp_path),
    )
    body = launched(TWO_RANKS, "policy", policy.body)

    class KillsOne(Listener):
        def set(self, done: int, *, total: int | None = None, unit: str | None = None) -> None:
            super().set(done)
            if done == 2:
                kill_rank_1()

    out_dir = run.folder / "round_001/policy"
    out_dir.mkdir(parents=True)
    with pytest.raises(
        JobFailed, match=r"(?s)child job of policy ended with exit code 1.*last checkpoint.*exitcode *: -9"
    ):
        body(spec, out_dir, Context(progress=KillsOne()))
    assert not [p for p in psutil.Process().children(recursive=True) if "tasks.job" in p.cmdline()]
    done = len(by_step(out_dir, "policy/loss"))
    assert 2 <= done < 4
    run_stage(run, spec, out_dir, body)
    (tmp_path / "whole").mkdir()
    policy.body(spec, tmp_path / "whole")
    assert_moved_alike(tmp_path / "given", tmp_path / "whole/model", out_dir / "model")


@pytest.mark.slow
def test_a_job_ends_with_its_parent(tmp_path):
    spec = make_spec(tmp_path, "grpo_config.max_updates=4000", "grpo_config.epochs=4000")
    out_dir = tmp_path / "policy"
    out_dir.mkdir()
    parent = os.fork()
    if parent == 0:
        launched(PROCESS, "policy", policy.body)(spec, out_dir, ALONE)
        os._exit(0)
    process = psutil.Process(parent)
    while not by_step_or_none(out_dir):
        assert process.is_running()
    jobs = process.children(recursive=True)
    assert jobs
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    _, alive = psutil.wait_procs(jobs, timeout=10)
    assert not alive


def by_step_or_none(folder: Path) -> list[float]:
    return by_step(folder, "policy/loss") if (folder / JOURNAL).exists() else []
