"""Two machines train one policy: two network namespaces, joined by a cable, of which the second sees the folder at another place."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from configs.errors import ConfigError, JobFailed, StageStopped
from configs.schema.run import LauncherConfig
from tasks.running.job_events import START
from tasks.running.machines import (
    Ending,
    Machine,
    interface_towards,
    is_of_this_machine,
    say_ending,
    take_number,
    wait_for_machines,
)
from tasks.running.stage import Context
from tasks.stages import policy
from tests.paths import ROOT
from tests.tasks.running.test_launcher import REWARDS, SLOW_REWARD, assert_moved_alike, by_step, make_spec

SLOW = f"rewards=[{REWARDS}, {{name: slow, kind: python, function: 'slow:nothing'}}]"
PORT = 29431


# ---- the files ------------------------------------------------------------------------------------------------------


def two(**changes: Any) -> LauncherConfig:
    settings = {"kind": "torchrun", "num_processes": 2, "num_machines": 2, "rendezvous": f"127.0.0.1:{PORT}"}
    return LauncherConfig.model_validate(settings | changes)


def test_each_machine_takes_a_number_of_its_own_and_no_more_than_there_are(tmp_path):
    taken = [take_number(tmp_path, 3) for _ in range(3)]
    assert [number for number, _ in filter(None, taken)] == [1, 2]
    assert taken[2] is None
    for _, heart in filter(None, taken):
        heart.__exit__(None, None, None)
    number, heart = take_number(tmp_path, 3) or (0, None)
    assert (number, bool(heart)) == (1, True)
    assert heart is not None
    heart.__exit__(None, None, None)


def test_a_machine_is_named_with_what_is_wrong_with_it(tmp_path):
    number, heart = take_number(tmp_path, 2) or pytest.fail("there is a place")
    machine = Machine(tmp_path, number, 2)
    assert machine.has_joined()
    assert machine.fault() is None
    name = f"machine {machine.host} (2 of 2)"
    assert machine.fault(silent_s=-1) == f"{name} has shown no sign of life for 0 s"
    say_ending(tmp_path, number, Ending(code=-9, text="SIGKILL"))
    assert machine.fault() == f"{name} ended with SIGKILL"
    say_ending(tmp_path, number, Ending(code=0))
    assert machine.fault(silent_s=-1) is None
    heart.__exit__(None, None, None)


def test_machines_that_do_not_come_are_waited_for_with_a_limit_and_a_command(tmp_path):
    with pytest.raises(JobFailed, match=r"1 of launcher.num_machines=2 .*join_timeout_s=1; .*regroup join sums"):
        wait_for_machines(two(join_timeout_s=1), tmp_path, "sums", Context())
    assert not (tmp_path / START).exists()
    shutil.rmtree(tmp_path / "machines")
    with pytest.raises(StageStopped, match="waited for 1 of 2 machines"):
        wait_for_machines(two(), tmp_path, "sums", Context(should_stop=lambda: True))


def test_the_rendezvous_is_an_address_that_other_machines_reach(monkeypatch):
    assert interface_towards(f"127.0.0.1:{PORT}") == interface_towards(f"localhost:{PORT}") == "lo"
    assert is_of_this_machine(f"127.0.0.1:{PORT}")
    with pytest.raises(ConfigError, match=r"'nowhere.invalid:1' cannot be reached from"):
        interface_towards("nowhere.invalid:1")
    import socket

    known = socket.getaddrinfo("127.0.1.1", PORT, type=socket.SOCK_DGRAM)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: known)
    with pytest.raises(ConfigError, match=r"'node1:1' stands for the loopback address 127.0.1.1"):
        interface_towards("node1:1")


# ---- two machines ---------------------------------------------------------------------------------------------------


class Machines:
    """Two network namespaces with the workspace in both; `.first` is the flow, `.second` what joins it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names = [f"regroup-{os.getpid()}-{number}" for number in (1, 2)]
        self.address = "10.231.77.1"
        self.processes: list[subprocess.Popen[bytes]] = []

    def set_up(self) -> None:
        """Raises CalledProcessError where that is not permitted."""
        first, second = self.names
        ends = [f"rg{os.getpid()}a"[:15], f"rg{os.getpid()}b"[:15]]
        for name in self.names:
            run("ip", "netns", "add", name)
        run("ip", "link", "add", ends[0], "netns", first, "type", "veth", "peer", "name", ends[1], "netns", second)
        for name, end, address in zip(self.names, ends, (self.address, "10.231.77.2"), strict=True):
            inside = ["ip", "-n", name]
            run(*inside, "addr", "add", f"{address}/24", "dev", end)
            run(*inside, "link", "set", end, "up")
            run(*inside, "link", "set", "lo", "up")
        run("ip", "netns", "exec", second, "ping", "-c1", "-W5", self.address) if shutil.which("ping") else None

    def tear_down(self) -> None:
        for process in self.processes:
            for one in [process_of(process), *children(process)]:
                if one is not None and one.is_running():
                    one.kill()
            process.wait(30)
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL, check=False)

    def train(self) -> subprocess.Popen[bytes]:
        return self._start(0, f"cd {self.root} && exec {sys.executable} -m tests.tasks.running.trains_here")

    def join(self) -> subprocess.Popen[bytes]:
        """On a host of another name that mounts the workspace elsewhere."""
        other = self.root.with_name("elsewhere")
        other.mkdir(exist_ok=True)
        seen = f"hostname second && mount --bind {self.root} {other} && cd {other}"
        return self._start(1, f"{seen} && exec {sys.executable} -m flows.cli join tiny")

    def _start(self, machine: int, script: str) -> subprocess.Popen[bytes]:
        log = self.root / f"machine-{machine}-{len(self.processes)}.txt"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.names[machine], "unshare", "--uts", "sh", "-c", script],
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self.processes.append(process)
        return process

    def said(self, machine: int) -> str:
        return "\n".join(file.read_text() for file in sorted(self.root.glob(f"machine-{machine}-*.txt")))


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def process_of(process: subprocess.Popen[bytes]) -> psutil.Process | None:
    try:
        return psutil.Process(process.pid)
    except psutil.NoSuchProcess:
        return None


def children(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    found = process_of(process)
    return [] if found is None else found.children(recursive=True)


def agents_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return [child for child in children(process) if "torch.distributed.run" in child.cmdline()]


def until(condition: Callable[[], Any], timeout_s: float, told: Callable[[], str]) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, told()
        time.sleep(0.1)


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    root = tmp_path / "workspace"
    root.mkdir()
    made = Machines(root)
    try:
        made.set_up()
    except (OSError, subprocess.CalledProcessError) as error:
        made.tear_down()
        pytest.skip(f"network namespaces cannot be made here: {error}")
    try:
        yield made
    finally:
        made.tear_down()


def ask(machines: Machines, *changes: str) -> policy.PolicySpec:
    (machines.root / "slow.py").write_text(SLOW_REWARD)
    spec = make_spec(machines.root, *changes)
    launcher = two(rendezvous=f"{machines.address}:{PORT}").model_dump(mode="json")
    (machines.root / "spec.json").write_text(json.dumps({"spec": spec.model_dump(mode="json"), "launcher": launcher}))
    return spec


def of_one_process(machines: Machines, spec: policy.PolicySpec) -> Path:
    out_dir = machines.root / "one"
    out_dir.mkdir()
    policy.body(spec, out_dir)
    return out_dir


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_machines_make_the_update_of_one_process_and_leave_nothing(machines):
    spec = ask(machines)
    one = of_one_process(machines, spec)
    second, first = machines.join(), machines.train()
    assert first.wait(600) == 0, machines.said(0) + machines.said(1)
    out_dir = machines.root / "runs/tiny/round_001/policy"
    for key in ("policy/loss", "policy/grad_norm", "reward/mean", "tokens/generated"):
        assert by_step(out_dir, key) == pytest.approx(by_step(one, key), rel=1e-4, abs=1e-6), key
    assert_moved_alike(machines.root / "given", one / "model", out_dir / "model")
    until(lambda: "machine 2 of 2: done" in machines.said(1), 60, lambda: machines.said(1))
    assert not (machines.root / "runs/tiny/jobs").exists()
    second.terminate()
    assert second.wait(60) == 130
    assert "elsewhere" in machines.said(1)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_machine_that_dies_fails_the_stage_by_name_and_the_same_command_goes_on(machines, monkeypatch):
    monkeypatch.chdir(machines.root)
    spec = ask(machines, SLOW)
    second, first = machines.join(), machines.train()
    out_dir = machines.root / "runs/tiny/round_001/policy"
    until(lambda: (out_dir / "checkpoints/step_000001").exists(), 400, lambda: machines.said(0) + machines.said(1))
    (agent,) = agents_of(second)
    ranks = agent.children()
    assert ranks
    agent.send_signal(signal.SIGKILL)
    assert first.wait(120) == 1
    _, alive = psutil.wait_procs(ranks, timeout=10)
    assert not alive
    said = machines.said(0)
    assert re.search(r"JobFailed: .*machine second \(2 of 2\) ended with SIGKILL; the same command goes on", said), said
    assert second.poll() is None
    again = machines.train()
    assert again.wait(600) == 0, machines.said(0) + machines.said(1)
    assert_moved_alike(machines.root / "given", of_one_process(machines, spec) / "model", out_dir / "model")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_job_ends_by_itself_when_the_heart_of_its_flow_stops(machines):
    ask(machines, SLOW, "grpo_config.max_updates=400", "grpo_config.epochs=400")
    second, first = machines.join(), machines.train()
    journal = machines.root / "runs/tiny/round_001/policy/journal.jsonl"
    until(journal.exists, 400, lambda: machines.said(0) + machines.said(1))
    (flow,) = [one for one in [process_of(first)] if one is not None]
    ranks = [child for agent in agents_of(second) for child in agent.children()]
    assert ranks
    flow.send_signal(signal.SIGSTOP)  # alive, and at work no more: no process id tells
    _, alive = psutil.wait_procs(ranks, timeout=90)
    assert not alive
    until(lambda: "ended with no sign of life from the flow" in machines.said(1), 30, lambda: machines.said(1))
    flow.send_signal(signal.SIGCONT)
    assert first.wait(120) == 1
    assert "JobFailed" in machines.said(0)
    assert not [child for child in children(first) if child.is_running()]
