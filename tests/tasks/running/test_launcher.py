"""A child job writes what the flow's own process would have written, tells the flow what it does, and stops with it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file

from configs.disk.files import JOURNAL, JournalLine, read_jsonl, weights_id
from configs.errors import ConfigError, JobFailed, StageStopped
from configs.schema.run import LauncherConfig
from grpo_train.policies.model import open_policy
from grpo_train.policies.tiny_model import save_tiny_model
from tasks.running.job_events import Job, StageKind
from tasks.running.launcher import command, launched
from tasks.running.stage import ALONE, Context, run_stage
from tasks.stages import policy
from tasks.stages.policy import PolicySpec
from tests.tasks.running.kills import child_that_does
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
    with pytest.raises(ConfigError, match="gone holds no causal language model"):
        launched(PROCESS, "policy", policy.body)(broken, out_dir, ALONE)
    with pytest.raises(StageStopped, match="stopped before step 1 of 4"):
        launched(PROCESS, "policy", policy.body)(spec, out_dir, Context(should_stop=lambda: True))


def job_of(stage: StageKind, **launcher: Any) -> Job:
    return Job(stage=stage, spec={}, out_dir="", workspace="", launcher=LauncherConfig(**launcher), stores="/stores")


def test_inline_is_the_body_itself_and_ranks_are_for_the_policy_alone(tmp_path):
    assert launched(LauncherConfig(), "policy", policy.body) is policy.body
    child = ["tasks.job", str(tmp_path), str(os.getpid())]
    for kind in ("accelerate", "torchrun"):
        assert command(job_of("policy", kind=kind, num_processes=2), tmp_path)[2:] == [
            "torch.distributed.run", "--rdzv-backend", "c10d", "--rdzv-endpoint", "/stores/agent.store",
            "--rdzv-conf", "store_type=file", "--nproc-per-node", "2", "-m", *child,
        ]  # fmt: skip
    with_file = job_of("policy", kind="accelerate", num_processes=4, config_file="cluster.yaml")
    assert command(with_file, tmp_path)[2:] == [
        "accelerate.commands.launch", "--config_file", "cluster.yaml", "--num_processes", "4", "--module", *child,
    ]  # fmt: skip
    several = {"kind": "torchrun", "num_processes": 4, "num_machines": 2, "rendezvous": "node1:29400"}
    assert command(job_of("policy", **several), tmp_path, 1)[2:] == [
        "torch.distributed.run", "--nnodes", "2", "--node-rank", "1", "--rdzv-backend", "static",
        "--rdzv-endpoint", "node1:29400", "--rdzv-id", tmp_path.name, "--nproc-per-node", "2", "-m", *child,
    ]  # fmt: skip
    assert command(job_of("reward_model", **several), tmp_path)[2:] == child


def test_more_than_one_process_needs_the_kind_that_has_them():
    with pytest.raises(ValueError, match=r"num_processes=2 needs kind torchrun or accelerate, not process"):
        LauncherConfig(kind="process", num_processes=2)


def test_several_machines_need_a_rendezvous_and_equally_many_ranks():
    assert (
        LauncherConfig(kind="torchrun", num_processes=8, num_machines=2, rendezvous="node1:29400").ranks_per_machine
        == 4
    )
    for wrong, said in [
        ({"kind": "accelerate", "num_processes": 2}, "num_machines=2 needs kind torchrun, not accelerate"),
        ({"num_processes": 3}, "num_processes=3 are the ranks of all num_machines=2"),
        ({"num_processes": 2}, "need a rendezvous, host:port .* not None"),
        ({"num_processes": 2, "rendezvous": "node1"}, "need a rendezvous, host:port .* not 'node1'"),
        ({"num_machines": 1, "rendezvous": "node1:1"}, "is of several machines, and num_machines=1"),
        ({"config_file": "x.yaml", "num_processes": 2, "rendezvous": "node1:1"}, "needs kind accelerate, not torchrun"),
    ]:
        with pytest.raises(ValueError, match=said):
            LauncherConfig.model_validate({"kind": "torchrun", "num_machines": 2} | wrong)


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
def test_ranks_of_one_machine_listen_on_loopback_alone_whatever_lies_in_the_folder(tmp_path, monkeypatch):
    """torchrun's store listened on all interfaces, and a file of the user's was taken for a module of ours or of Python's."""
    monkeypatch.chdir(tmp_path)
    for name in ("random", "tasks", "socket", "datasets"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('taken for another')")
    (tmp_path / "beside.py").write_text("VALUE = 0.5")
    (tmp_path / "flows.py").write_text(
        "import beside\ndef half(problems, completions): return [beside.VALUE] * len(problems)"
    )
    addresses: set[str] = set()

    class Looks(Listener):
        def set(self, done: int, *, total: int | None = None, unit: str | None = None) -> None:
            for child in psutil.Process().children(recursive=True):
                listening = [c for c in child.net_connections("inet") if c.status == psutil.CONN_LISTEN]
                addresses.update(connection.laddr.ip for connection in listening)

    out_dir = tmp_path / "policy"
    out_dir.mkdir()
    spec = make_spec(tmp_path, f"rewards=[{REWARDS}, {{name: half, kind: python, function: 'flows:half'}}]")
    launched(TWO_RANKS, "policy", policy.body)(spec, out_dir, Context(progress=Looks()))
    assert addresses == {"127.0.0.1"}
    assert by_step(out_dir, "objective/half/mean") or by_step(out_dir, "reward/half/mean")


@pytest.mark.slow
def test_fewer_ranks_than_asked_for_do_not_train(tmp_path, monkeypatch):
    """accelerate starts one process on a CPU, whatever the file and `--num_processes` say, and exits with 0."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cluster.yaml").write_text("distributed_type: MULTI_CPU\nnum_processes: 2\nuse_cpu: true\n")
    launcher = LauncherConfig(kind="accelerate", num_processes=2, config_file="cluster.yaml")
    (tmp_path / "policy").mkdir()
    with pytest.raises(ConfigError, match=r"num_processes=2, and cluster\.yaml made accelerate start 1; drop launcher"):
        launched(launcher, "policy", policy.body)(make_spec(tmp_path), tmp_path / "policy", ALONE)


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
    parent = child_that_does(lambda: launched(PROCESS, "policy", policy.body)(spec, out_dir, ALONE))
    process = psutil.Process(parent.pid)
    while not by_step_or_none(out_dir):
        assert process.is_running()
    jobs = process.children(recursive=True)
    assert jobs
    parent.kill()
    parent.join()
    _, alive = psutil.wait_procs(jobs, timeout=10)
    assert not alive


def by_step_or_none(folder: Path) -> list[float]:
    return by_step(folder, "policy/loss") if (folder / JOURNAL).exists() else []
