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
from pathlib import Path
from typing import Any

import pytest

from tasks.runs.run_file import read_run
from tasks.runs.workspace import workspace_lock
from tests.flows.whole_runs.tiny_run import Call, regroup, servers_on_record, summary_of
from tests.paths import TINY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]


class Served:
    """A served configuration, and Prefect's API beside it."""

    def __init__(self, call: Call, api_url: str) -> None:
        self.call = call
        self.api_url = api_url

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
        deployment = self.ask("deployments/name/align-next/tiny")
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


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    call = Call(tmp_path, "serve", str(TINY), "--cron", "0 0 1 1 *")
    try:
        call.until(lambda: "Ctrl-C ends the schedule" in call.err, timeout_s=300)
        found = re.search(r"PREFECT_API_URL=(\S+)", call.err)
        assert found is not None
        served = Served(call, found[1])
        call.until(lambda: _is_ready(served))
        yield served
    finally:
        call.process.send_signal(signal.SIGTERM)
        try:
            call.end(60)
        except subprocess.TimeoutExpired:
            call.kill()


def _is_ready(served: Served) -> bool:
    time.sleep(0.5)
    found = served.ask("deployments/filter", {})
    return any(deployment["name"] == "tiny" for deployment in found)


def test_each_scheduled_run_follows_on_from_the_champion_and_one_runs_at_a_time(served: Served) -> None:
    workspace = served.call.workspace
    assert served.wait(served.trigger(), "COMPLETED", "FAILED", "CRASHED")["type"] == "COMPLETED"
    first = summary_of(workspace, "tiny")
    assert first["status"] == "done"

    with workspace_lock(workspace, "held-by-a-test"):
        refused = served.wait(served.trigger(), "COMPLETED", "FAILED", "CRASHED", "CANCELLED", timeout_s=180)
    assert refused["type"] in ("FAILED", "CANCELLED")
    assert "held by run 'held-by-a-test'" in refused["message"]

    assert served.wait(served.trigger(), "COMPLETED", "FAILED", "CRASHED")["type"] == "COMPLETED"
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
    for address in addresses:
        with urllib.request.urlopen(address, timeout=30) as response:
            assert response.status == 200
    call.process.send_signal(signal.SIGINT)
    assert call.end(60) == 0
    assert servers_on_record(tmp_path) == []
    for address in addresses:
        with pytest.raises(OSError, match="refused"):
            urllib.request.urlopen(address, timeout=5)
