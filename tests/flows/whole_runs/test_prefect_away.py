"""Runs beside a Prefect server that is killed: they go on, and the server learns of them when it is back."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.prefect_server import Server, free_port, start_full
from tests.empty_databases import PREFECT, place
from tests.flows.test_serve import serving
from tests.flows.whole_runs.tiny_run import Call, regroup, summary_of
from tests.paths import TINY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SHORT = ("--set", "rounds=1", "--set", "grpo_config.max_updates=2")
TOLD = {"tiny": "COMPLETED", "round-0": "COMPLETED", "round-1": "COMPLETED"}


def flow_runs(database: Path) -> dict[str, str]:
    """{name of a flow run: its state}"""
    return dict(_ask(database, "select name, state_type from flow_run"))


def task_runs(database: Path) -> dict[str, set[str]]:
    """{state: names of task runs}"""
    found: dict[str, set[str]] = {}
    for name, state in _ask(database, "select name, state_type from task_run"):
        found.setdefault(state, set()).add(name)
    return found


def _ask(database: Path, query: str) -> list[tuple[str, str]]:
    connection = sqlite3.connect(database)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


class Shared:
    """A server beside the workspace, which a test kills and starts again on its database."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PREFECT_HOME", str(folder / "home"))
        self.folder = folder
        self.port = free_port()
        self.server: Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def database(self) -> Path:
        return self.folder / "home" / "prefect.db"

    def start(self) -> None:
        place(PREFECT, self.database)
        self.server = start_full(self.folder, self.port)

    def stop(self) -> None:
        if self.server is not None:
            self.server.stop()


@pytest.fixture
def shared(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shared]:
    server = Shared(tmp_path_factory.mktemp("server"), monkeypatch)
    server.start()
    yield server
    server.stop()


def test_a_server_that_is_away_for_a_while_learns_the_whole_run(shared: Shared, tmp_path: Path) -> None:
    call = Call(tmp_path, "run", str(TINY), *SHORT, PREFECT_API_URL=shared.url)
    call.until(lambda: "round 0 · evaluate: done" in call.err)
    shared.stop()
    call.until(lambda: "round 1 · evaluate: done" in call.err)
    shared.start()
    assert call.end() == 0, call.err
    assert "Prefect's server does not answer" in call.err
    assert flow_runs(shared.database) == TOLD
    assert task_runs(shared.database).keys() == {"COMPLETED"}
    assert "lacks the end" not in call.out


def test_a_server_that_never_comes_back_is_named_and_learns_it_from_the_next_call(
    shared: Shared, tmp_path: Path
) -> None:
    call = Call(tmp_path, "run", str(TINY), *SHORT, PREFECT_API_URL=shared.url)
    call.until(lambda: "round 0 · regenerate: done" in call.err)
    shared.stop()
    assert call.end() == 0, call.err
    assert summary_of(tmp_path)["status"] == "done"
    assert f"Prefect    {shared.url} lacks the end of tiny" in " ".join(call.out.split("\n")[-8:])
    refused = regroup(tmp_path, "run", str(TINY), *SHORT, "--run", "other", PREFECT_API_URL=shared.url)
    assert refused.process.returncode == 2
    assert "does not answer; start that server, or unset the variable" in refused.err

    shared.start()
    again = regroup(tmp_path, "run", str(TINY), *SHORT, PREFECT_API_URL=shared.url)
    assert again.process.returncode == 0
    assert "lacks the end" not in again.out
    assert flow_runs(shared.database) == TOLD
    assert task_runs(shared.database).keys() == {"COMPLETED"}


def test_a_temporary_server_that_is_killed_is_started_again(tmp_path: Path) -> None:
    call = Call(tmp_path, "run", str(TINY), *SHORT)
    call.until(lambda: "round 0 · evaluate: done" in call.err)
    os.kill(call.server_pid(), signal.SIGKILL)
    assert call.end() == 0, call.err
    assert flow_runs(tmp_path / ".prefect" / "prefect.db") == TOLD
    assert task_runs(tmp_path / ".prefect" / "prefect.db").keys() == {"COMPLETED"}


def test_a_scheduled_run_and_its_schedule_outlive_their_server(shared: Shared, tmp_path: Path) -> None:
    with serving(tmp_path, *SHORT, PREFECT_API_URL=shared.url) as served:
        call = served.call
        flow_run = served.trigger()
        call.until(lambda: "round 0 · evaluate: done" in call.err + call.out)
        shared.stop()
        call.until(lambda: "round 1 · evaluate: done" in call.err + call.out)
        shared.start()
        assert served.wait(flow_run, "COMPLETED", "FAILED", "CRASHED")["type"] == "COMPLETED"
        rounds = {name: state for name, state in TOLD.items() if name != "tiny"}
        assert flow_runs(shared.database).items() >= rounds.items()
        assert served.wait(served.trigger(), "RUNNING", "COMPLETED", "FAILED", "CRASHED")["type"] == "RUNNING"


def is_at_work(database: Path) -> bool:
    """Whether Prefect was told that round 0 and a stage of it run; on a busy machine it is told late."""
    return flow_runs(database).get("round-0") == "RUNNING" and "RUNNING" in task_runs(database)


def test_the_flow_runs_of_a_killed_run_are_crashed_by_the_next_one(shared: Shared, tmp_path: Path) -> None:
    call = Call(tmp_path, "run", str(TINY), *SHORT, PREFECT_API_URL=shared.url)
    call.until(lambda: is_at_work(shared.database))
    call.kill()
    assert flow_runs(shared.database)["tiny"] == "RUNNING"
    assert regroup(tmp_path, "run", str(TINY), *SHORT, PREFECT_API_URL=shared.url).process.returncode == 0
    states = _ask(shared.database, "select name, state_type from flow_run")
    assert sorted(states) == sorted([*TOLD.items(), ("tiny", "CRASHED"), ("round-0", "CRASHED")])
    assert task_runs(shared.database).keys() == {"COMPLETED", "CRASHED"}
    messages = _ask(shared.database, "select name, message from flow_run_state where type = 'CRASHED'")
    assert {message.split(",")[0] for _, message in messages} == {"its process ended without a word"}
