"""Servers are watched: a small program that answers /health stands in for vLLM, with a child as vLLM has its engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.engines import watching
from flows.engines.settings import Launch
from flows.engines.watching import ServerGivenUp, Watched, answers, end_left_behind, watch
from flows.prefect_server import HOST, free_port
from flows.stopping import sigterm_as_ctrl_c
from tasks.showing.terminal import Terminal
from tests.flows.whole_runs.services import wait_until

PROGRAM = """
import subprocess, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *arguments):
        pass

subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
POPEN = subprocess.Popen
BROKEN = "import sys; print('no room for the model'); sys.exit(3)"


def launch(program: str = PROGRAM) -> Launch:
    port = free_port()
    return Launch(f"http://{HOST}:{port}", [sys.executable, "-c", program, str(port)], {})


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    monkeypatch.setattr(watching, "PAUSE_S", 0.1)
    server = Watched(launch(), tmp_path, Terminal())
    yield server
    server.stop()


def ready(server: Watched) -> list[psutil.Process]:
    """Wait until the server is ready; returns its processes."""

    def looked() -> bool:
        server.look()
        return server.is_ready

    wait_until(looked, 60, "the server")
    parent = psutil.Process(server._process.pid)  # type: ignore[union-attr]
    return [parent, *parent.children(recursive=True)]


def kill(server: Watched) -> None:
    process = server._process
    assert process is not None
    process.kill()
    wait_until(lambda: process.poll() is not None, 10, "the kill")


def gone(processes: list[psutil.Process]) -> bool:
    return all(not each.is_running() or each.status() == psutil.STATUS_ZOMBIE for each in processes)


def test_killed_server_is_started_again_and_its_engine_does_not_stay(
    watched: Watched, capsys: pytest.CaptureFixture[str]
) -> None:
    watched.start()
    before = ready(watched)
    assert len(before) == 2
    kill(watched)
    after = ready(watched)
    assert answers(watched.launch.url)
    assert gone(before)
    assert not gone(after)
    said = capsys.readouterr().err
    assert "ended with code -9; starting it again" in said
    assert said.count("ready after") == 2


def test_hanging_server_is_started_again(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(watching, "HANGS_S", 1.0)
    monkeypatch.setattr(watching, "GRACE_S", 1.0)
    watched.start()
    before = ready(watched)
    before[0].send_signal(signal.SIGSTOP)

    def noticed() -> bool:
        watched.look()
        return "has not answered" in capsys.readouterr().err

    wait_until(noticed, 60, "the end of a server that hangs")
    ready(watched)
    assert gone(before)


def test_server_that_does_not_come_up_is_given_up_with_the_end_of_its_log(tmp_path: Path) -> None:
    server = Watched(launch(BROKEN), tmp_path, Terminal())
    with pytest.raises(ServerGivenUp, match=r"code 3 before it was ready(.|\n)*no room for the model"):
        watch([server], lambda: None)


def test_server_that_ends_again_and_again_is_given_up(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "MOST_ENDS", 2)
    watched.start()
    ready(watched)
    kill(watched)
    watched.look()
    ready(watched)
    kill(watched)
    with pytest.raises(ServerGivenUp, match="2 times in 600 s"):
        watched.look()


def test_end_of_watching_leaves_no_process(tmp_path: Path) -> None:
    servers = [Watched(launch(), tmp_path, Terminal()) for _ in range(2)]
    family: list[psutil.Process] = []

    def once_ready() -> None:
        for server in servers:
            family.extend(ready(server))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watch(servers, once_ready)
    assert len(family) == 4
    assert gone(family)
    assert list(tmp_path.glob("*.json")) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_between_the_start_of_a_server_and_the_note_of_it_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """Ctrl-C in that moment left a server that nobody knew of."""
    started: list[subprocess.Popen[bytes]] = []

    def interrupted(*arguments: Any, **settings: Any) -> subprocess.Popen[bytes]:
        started.append(POPEN(*arguments, **settings))
        os.kill(os.getpid(), number)
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    with sigterm_as_ctrl_c(), pytest.raises(KeyboardInterrupt):
        watch([Watched(launch(), tmp_path, Terminal()) for _ in range(2)], lambda: None)
    assert [process.poll() for process in started] == [-signal.SIGTERM]
    assert list(tmp_path.glob("*.json")) == []


def test_servers_of_a_killed_call_are_ended_by_the_next(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        watching,
        "identity_of",
        lambda pid=None: {"pid": pid or 2**22 + 7, "started": 1.0} if pid is None else _identity(pid),
    )
    watched.start()
    family = ready(watched)
    reaper = threading.Thread(target=watched._process.wait)  # type: ignore[union-attr]
    reaper.start()
    end_left_behind(tmp_path, [watched.launch.port])
    reaper.join(20)
    assert gone(family)


def test_server_of_a_call_that_was_killed_before_it_noted_the_process_is_ended_by_the_next(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next call found the port taken."""
    notes: list[Any] = []

    def seen(*arguments: Any, **settings: Any) -> subprocess.Popen[bytes]:
        [file] = tmp_path.glob("*.json")
        notes.append(json.loads(file.read_text()))
        return POPEN(*arguments, **settings)

    monkeypatch.setattr(subprocess, "Popen", seen)
    watched.start()
    family = ready(watched)
    [note] = notes
    assert note["server"] is None
    gone_call = {"pid": 2**22 + 7, "started": 1.0}
    (tmp_path / f"server-{watched.launch.port}.json").write_text(json.dumps(note | {"owner": gone_call}))
    reaper = threading.Thread(target=watched._process.wait)  # type: ignore[union-attr]
    reaper.start()
    end_left_behind(tmp_path, [watched.launch.port])
    reaper.join(20)
    assert gone(family)


def _identity(pid: int) -> dict[str, float]:
    return {"pid": pid, "started": psutil.Process(pid).create_time()}


def test_server_of_a_call_that_runs_is_left_alone(watched: Watched, tmp_path: Path) -> None:
    watched.start()
    with pytest.raises(
        watching.ConfigError, match=f"process {os.getpid()} watches a server on port {watched.launch.port}"
    ):
        end_left_behind(tmp_path, [watched.launch.port])
