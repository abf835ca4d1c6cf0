"""Which processes are ended, and which never are."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from configs.disk.files import write_json
from configs.errors import ConfigError
from flows import prefect_server
from flows.prefect_server import (
    APP,
    DATABASE_SETTINGS,
    check_answers,
    configure,
    end_leftovers,
    free_port,
    making_database,
)

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
GONE = {"pid": 2**22 + 1, "started": 0.0}
"""over the largest process id of Linux"""


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(SLEEP)
    yield process
    process.kill()
    process.wait()


def _identity(pid: int, *, shift: float = 0.0) -> dict[str, float]:
    return {"pid": pid, "started": psutil.Process(pid).create_time() + shift}


def _write(workspace: Path, server: dict[str, float], owner: dict[str, float]) -> Path:
    file = workspace / ".prefect" / "server-1.json"
    write_json(file, {"server": server, "owner": owner, "port": 1})
    return file


def test_the_server_of_a_killed_owner_is_ended(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    file = _write(tmp_path, _identity(sleeper.pid), GONE)
    assert end_leftovers(tmp_path) == [sleeper.pid]
    assert not psutil.pid_exists(sleeper.pid)
    assert not file.exists()


def test_the_server_of_a_living_owner_is_left_alone(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    file = _write(tmp_path, _identity(sleeper.pid), _identity(os.getpid()))
    assert end_leftovers(tmp_path) == []
    assert sleeper.poll() is None
    assert file.exists()


def test_a_process_that_got_the_id_later_is_left_alone(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    file = _write(tmp_path, _identity(sleeper.pid, shift=-3600), GONE)
    assert end_leftovers(tmp_path) == []
    assert sleeper.poll() is None
    assert not file.exists()


def test_a_server_whose_id_was_not_yet_written_is_found_by_its_port(tmp_path: Path) -> None:
    port = free_port()
    process = subprocess.Popen([*SLEEP, APP, "--port", str(port)])
    try:
        write_json(tmp_path / ".prefect" / "server-1.json", {"server": None, "owner": GONE, "port": port})
        assert end_leftovers(tmp_path) == [process.pid]
    finally:
        process.kill()
        process.wait()


def test_a_torn_file_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / ".prefect" / "server-1.json"
    file.parent.mkdir()
    file.write_text('{"server": ')
    assert end_leftovers(tmp_path) == []


def test_settings_of_the_user_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"PREFECT_HOME": "/theirs"})
    configure(tmp_path)
    assert os.environ["PREFECT_HOME"] == "/theirs"
    assert os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"


def test_prefect_lives_in_the_workspace_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    configure(tmp_path)
    assert os.environ["PREFECT_HOME"] == str(tmp_path / ".prefect")


def test_a_server_that_does_not_answer_is_named_with_the_remedy() -> None:
    url = f"http://127.0.0.1:{free_port()}/api"
    with pytest.raises(ConfigError, match=rf"PREFECT_API_URL={url} does not answer; start that server, or unset"):
        check_answers(url)


@pytest.mark.slow
def test_a_new_workspace_gets_a_database_and_no_server_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    with making_database(tmp_path):
        (record,) = (tmp_path / ".prefect").glob("server-*.json")
        server = int(json.loads(record.read_text())["server"]["pid"])
    assert not psutil.pid_exists(server)
    database = sqlite3.connect(tmp_path / "home" / "prefect.db")
    assert database.execute("select count(*) from flow_run").fetchone() == (0,)
    database.close()
    with making_database(tmp_path):
        assert not list((tmp_path / ".prefect").glob("server-*.json"))


@pytest.mark.parametrize("odd", ["what?", "a?b=c"])
def test_the_database_lies_in_the_workspace_whatever_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, odd: str
) -> None:
    """Prefect's own address of the database ended at the `?`, in a file that MLflow's ended in too."""
    from prefect.settings.models.root import Settings

    for name in [name for name in os.environ if name.startswith(("PREFECT_HOME", *DATABASE_SETTINGS))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_SERVER_DATABASE_CONNECTION_URL", "")
    monkeypatch.delenv("PREFECT_SERVER_DATABASE_CONNECTION_URL")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / odd))
    configure(tmp_path)
    url = Settings().server.database.connection_url
    assert url is not None
    path = f"{tmp_path}/{odd}/prefect.db".replace("?", "%3F").replace("=", "%3D")
    assert url.get_secret_value() == f"sqlite+aiosqlite:///file:{path}?uri=true"


def test_a_server_that_is_killed_is_started_again_until_it_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefect_server, "RESTART_AFTER_S", 0.02)
    monkeypatch.setattr(prefect_server, "LONGEST_RESTART_S", 0.02)
    pid_file = tmp_path / "server-1.json"
    server = prefect_server.Server(1, pid_file, tmp_path / "server.log", SLEEP, dict(os.environ))
    server.keep_up()
    pids = set()
    try:
        for _ in range(3):
            pids.add(server.process.pid)
            assert json.loads(pid_file.read_text())["server"]["pid"] == server.process.pid
            server.process.kill()
            _until(lambda: server.process.pid not in pids and json.loads(pid_file.read_text())["server"] is not None)
    finally:
        server.stop()
    assert len(pids) == 3
    assert server.process.poll() is not None
    assert not pid_file.exists()
    time.sleep(0.1)
    assert not pid_file.exists()


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
