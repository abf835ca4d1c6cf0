"""`regroup serve` on a Prefect server of its own: follow-ons from the champion, one run at a time."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tasks.runs.run_file import read_run
from tasks.runs.workspace import lock_holder, workspace_lock
from tests.flows.whole_runs.tiny_run import Call, regroup, servers_on_record, summary_of
from tests.paths import TINY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

FAILS_ONCE = """
import pathlib

def once(problems, completions):
    if pathlib.Path("fail").exists():
        raise RuntimeError("a fault of the user's code")
    return [0.5] * len(problems)
"""


def holder_of(workspace: Path) -> int:
    holder = lock_holder(workspace)
    assert holder is not None
    return holder.pid


class Served:
    """A served configuration, and Prefect's API beside it."""

    def __init__(self, call: Call) -> None:
        call.until(lambda: "Ctrl-C ends the schedule" in call.err, timeout_s=300)
        serving, run_now = (re.search(text, call.err) for text in (r"serving (\S+),", r"PREFECT_API_URL=(\S+)"))
        assert serving is not None
        assert run_now is not None
        self.call = call
        self.deployment, self.api_url = serving[1], run_now[1]

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.api_url}/{path}", data, {"Content-Type": "application/json"})
        for _ in range(60):  # 503 says that the database is locked for a moment; Prefect's own client asks again too
            try:
                with urllib.request.urlopen(request, timeout=30) as response:
                    return json.load(response)
            except urllib.error.HTTPError as error:
                if error.code != 503:
                    raise
                time.sleep(0.5)
        raise TimeoutError(f"{path} was answered with 503 for half a minute")

    def trigger(self) -> str:
        """Id of a new flow run."""
        deployment = self.ask(f"deployments/name/{self.deployment}")
        return str(self.ask(f"deployments/{deployment['id']}/create_flow_run", {})["id"])

    def state(self, flow_run: str) -> dict[str, Any]:
        state: dict[str, Any] = self.ask(f"flow_runs/{flow_run}")["state"]
        return state

    def wait(self, flow_run: str, *states: str, timeout_s: float = 900) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        while (state := self.state(flow_run))["type"] not in states:
            assert time.monotonic() < deadline, state
            assert self.call.process.poll() is None, self.call.err
            time.sleep(0.5)
        return state


@contextmanager
def serving(workspace: Path, *options: str, cron: str = "0 0 1 1 *", **variables: str) -> Iterator[Served]:
    workspace.mkdir(exist_ok=True)
    call = Call(workspace, "serve", str(TINY), "--cron", cron, *options, **variables)
    try:
        yield Served(call)
    finally:
        call.process.send_signal(signal.SIGTERM)
        try:
            call.end(60)
        except subprocess.TimeoutExpired:
            call.kill()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as served:
        yield served


def test_each_scheduled_run_follows_on_from_the_champion_and_one_runs_at_a_time(served: Served) -> None:
    workspace = served.call.workspace
    assert served.wait(served.trigger(), "COMPLETED", "FAILED", "CRASHED")["type"] == "COMPLETED"
    first = summary_of(workspace, "tiny")
    assert first["status"] == "done"

    with workspace_lock(workspace, "held-by-a-test"):
        skipped = served.wait(served.trigger(), "COMPLETED", "FAILED", "CRASHED", "CANCELLED", timeout_s=180)
    assert (skipped["type"], skipped["name"]) == ("CANCELLED", "Skipped")
    assert "held by run 'held-by-a-test'" in skipped["message"]
    served.call.until(lambda: f"scheduled run: skipped, {workspace} is held by run 'held-by-a-test'" in served.call.err)

    flow_run = served.trigger()
    assert served.wait(flow_run, "COMPLETED", "FAILED", "CRASHED")["type"] == "COMPLETED"
    assert served.ask(f"flow_runs/{flow_run}")["name"] == "tiny-0002"
    second = summary_of(workspace, "tiny-0002")
    assert second["parent_run"] == "tiny"
    assert second["rounds"][0]["policy_id"] == first["champion"]["policy_id"]
    before, after = read_run(workspace, "tiny"), read_run(workspace, "tiny-0002")
    assert after.initial_policy == before.initial_policy
    assert after.config["seed"] != before.config["seed"]
    shards = [
        (workspace / "runs" / name / "problems" / "regenerate_000.jsonl").read_bytes() for name in ("tiny", after.name)
    ]
    assert shards[0] != shards[1]
    assert "tiny-0002" in regroup(workspace, "status").out
    served.call.until(lambda: "tiny-0002: done, champion is round " in served.call.err)
    told = [line[21:] for line in served.call.err.splitlines() if re.match(r"\d{4}-\d\d-\d\d ", line)]
    assert [line.split(",")[0] for line in told] == [
        "tiny: started", "tiny: done", "scheduled run: skipped", "tiny-0002: started", "tiny-0002: done"
    ]  # fmt: skip
    assert told[-1].endswith("see runs/tiny-0002/report.html")


def test_a_killed_run_and_a_failed_one_leave_a_line_and_the_next_goes_on(tmp_path: Path) -> None:
    (tmp_path / "random.py").write_text("raise RuntimeError('taken for another')")
    (tmp_path / "tasks.py").write_text(FAILS_ONCE)
    reward = "rewards=[{name: correct, kind: outcome}, {name: once, kind: python, function: 'tasks:once'}]"
    settings = ("--set", reward, "--set", "reward_models={}", "--set", "rounds=1")
    with serving(tmp_path, *settings) as served:
        flow_run = served.trigger()
        served.call.until(lambda: "tiny: started" in served.call.err)
        for child in psutil.Process(served.call.process.pid).children():
            if child.pid == holder_of(tmp_path):
                child.send_signal(signal.SIGKILL)
        assert served.wait(flow_run, "COMPLETED", "FAILED", "CRASHED")["type"] == "CRASHED"
        served.call.until(lambda: "tiny: its process was ended by SIGKILL before it was done" in served.call.err)
        (tmp_path / "fail").touch()
        assert served.wait(served.trigger(), "COMPLETED", "FAILED", "CRASHED")["type"] == "FAILED"
        served.call.until(lambda: "tiny: failed, RewardError: " in served.call.err)
        assert "its log is runs/tiny/log.txt" in served.call.err
        (tmp_path / "fail").unlink()
        assert served.wait(served.trigger(), "COMPLETED", "FAILED", "CRASHED")["type"] == "COMPLETED"
        served.call.until(lambda: "tiny: done" in served.call.err)


def test_two_folders_on_one_server_have_a_deployment_each(tmp_path: Path) -> None:
    """The second took the first's deployment over, ran all its runs, and the first waited for ever."""
    brief = ("--set", "rounds=1", "--set", "reward_models={}", "--set", "rewards=[{name: correct, kind: outcome}]")
    with serving(tmp_path / "one", *brief, "--timezone", "Asia/Tokyo") as one, serving(tmp_path / "two", *brief) as two:
        assert one.api_url == two.api_url
        assert one.deployment != two.deployment
        assert all(served.deployment.startswith("align-next/tiny-") for served in (one, two))
        assert "in Asia/Tokyo time" in one.call.err
        runs = [(served, served.trigger()) for served in (two, one)]
        for served, flow_run in runs:
            assert served.wait(flow_run, "COMPLETED", "FAILED", "CRASHED")["type"] == "COMPLETED"
            assert summary_of(served.call.workspace, "tiny")["prefect"]["flow_run_id"] == flow_run
            found = served.ask(f"deployments/name/{served.deployment}")
            assert str(served.call.workspace) in found["description"]
        [schedule] = one.ask(f"deployments/name/{one.deployment}")["schedules"]
        assert schedule["schedule"]["timezone"] == "Asia/Tokyo"


def test_a_moved_folder_keeps_its_deployment_and_serves_it_again(tmp_path: Path) -> None:
    with serving(tmp_path / "one") as one:
        with serving(tmp_path / "two") as two:
            assert two.deployment != one.deployment
        assert one.ask(f"deployments/name/{two.deployment}")["paused"]
        (tmp_path / "two").rename(tmp_path / "moved")
        with serving(tmp_path / "moved", cron="5 4 * * *") as moved:
            assert moved.deployment == two.deployment
            found = moved.ask(f"deployments/name/{moved.deployment}")
            assert not found["paused"]
            assert [schedule["schedule"]["cron"] for schedule in found["schedules"]] == ["5 4 * * *"]
            assert found["parameters"]["workspace"]["path"] == str(tmp_path / "moved")


def test_the_server_that_serve_started_ends_with_it(served: Served) -> None:
    assert len(servers_on_record(served.call.workspace)) == 1
    served.call.process.send_signal(signal.SIGTERM)
    served.call.end(60)
    assert servers_on_record(served.call.workspace) == []
    with pytest.raises(OSError, match="refused"):
        served.ask("health")


def test_ui_says_its_addresses_and_ends_what_it_started(tmp_path: Path) -> None:
    call = Call(tmp_path, "ui")
    call.until(lambda: "Ctrl-C ends" in call.err)
    addresses = re.findall(r"(?:MLflow|Prefect) +(http://127\.0\.0\.1:\d+)", call.err)
    assert len(addresses) == 2
    assert "/#/experiments?workflowType=machine_learning" in call.err, "the page of training runs, not of applications"
    for address in addresses:
        with urllib.request.urlopen(address, timeout=30) as response:
            assert response.status == 200
    call.process.send_signal(signal.SIGINT)
    assert call.end(60) == 0
    assert servers_on_record(tmp_path) == []
    for address in addresses:
        with pytest.raises(OSError, match="refused"):
            urllib.request.urlopen(address, timeout=5)
