"""Keeps vLLM servers running: starts them, says when they are ready, and starts those again that end or hang."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from configs.disk.files import write_json
from configs.errors import ConfigError
from flows.engines.settings import Launch
from flows.prefect_server import end_process, find_process, identity_of
from flows.stopping import held_back
from tasks.showing.terminal import Terminal, clock

POLL_S = 0.5
SAY_EVERY_S = 30.0
HANGS_S = 120.0
"""without an answer, after which a server that was ready counts as hanging"""
GRACE_S = 20.0
"""for a server to end by itself"""
PAUSE_S = 2.0
"""before a server is started again"""
MOST_ENDS, WITHIN_S = 5, 600.0
"""a server that ends so often in that time is given up"""
LINES = 12
"""of the log in a message"""


class ServerGivenUp(RuntimeError):
    """A server does not come up, or ends again and again."""


class Watched:
    """One server, its process group, its log and the file from which a later call finds what a killed one left."""

    def __init__(self, launch: Launch, folder: Path, terminal: Terminal) -> None:
        self.launch, self._terminal = launch, terminal
        self.log = folder / f"server-{launch.port}.log"
        self._pid_file = folder / f"server-{launch.port}.json"
        self._process: subprocess.Popen[bytes] | None = None
        self._family: list[psutil.Process] = []
        self._ends: list[float] = []
        self._was_ready = False
        self.is_ready = False
        self._started = self._answered = self._said = 0.0

    def start(self) -> None:
        """Start the process; `look` says how it goes."""
        self._note(None)
        with held_back(), self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self.launch.command,
                env=os.environ | self.launch.variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            self._note(identity_of(self._process.pid))
        self.is_ready, self._started, self._said = False, time.monotonic(), time.monotonic()
        self._terminal.say(f"{self.launch.url}: loading the model, which takes a minute or two; log {self.log}")

    def _note(self, server: dict[str, float] | None) -> None:
        """Write the file; first without a server, before that starts, as this process may be killed in between."""
        write_json(self._pid_file, {"server": server, "owner": identity_of(), "command": self.launch.command})

    def look(self) -> None:
        """Say what is new about the server, and start it again if it has ended or hangs.

        Raises:
            ServerGivenUp: it never came up, or ended too often.
        """
        assert self._process is not None
        now = time.monotonic()
        if (code := self._process.poll()) is not None:
            self._start_again(f"ended with code {code}")
        elif answers(self.launch.url):
            self._answered = now
            self._remember_family()
            if not self.is_ready:
                self.is_ready = self._was_ready = True
                self._terminal.say(f"{self.launch.url}: ready after {clock(now - self._started)}")
        elif self.is_ready and now - self._answered > HANGS_S:
            self._start_again(f"has not answered for {HANGS_S:.0f} s")
        elif not self.is_ready and now - self._said > SAY_EVERY_S:
            self._said = now
            self._terminal.say(f"{self.launch.url}: still loading, {clock(now - self._started)}")

    def _start_again(self, what: str) -> None:
        self.stop()
        now = time.monotonic()
        self._ends = [each for each in self._ends if now - each < WITHIN_S] + [now]
        if not self._was_ready or len(self._ends) >= MOST_ENDS:
            often = f", {len(self._ends)} times in {WITHIN_S:.0f} s" if self._was_ready else " before it was ready"
            raise ServerGivenUp(
                f"the server at {self.launch.url} {what}{often}; the end of {self.log}:\n{tail(self.log)}"
            )
        self._terminal.warn(f"{self.launch.url}: {what}; starting it again")
        time.sleep(PAUSE_S)
        self.start()

    def _remember_family(self) -> None:
        """The engine's processes, which would outlive a server that is killed."""
        assert self._process is not None
        with suppress(psutil.NoSuchProcess):
            self._family = psutil.Process(self._process.pid).children(recursive=True)

    def stop(self) -> None:
        """End the server and all that it started; does nothing if all of it has ended."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._remember_family()
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE_S)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for process in self._family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        deadline = time.monotonic() + GRACE_S
        while any(_runs(process) for process in self._family) and time.monotonic() < deadline:
            time.sleep(0.05)
        self._pid_file.unlink(missing_ok=True)


def _runs(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def answers(url: str, timeout_s: float = 5) -> bool:
    """Whether a server says that it is healthy."""
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{url.rstrip('/')}/health", timeout=timeout_s) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def tail(log: Path) -> str:
    """The last lines of a log that are not empty."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return "\n".join(f"  {line}" for line in lines[-LINES:])


def watch(servers: list[Watched], once_ready: Callable[[], None]) -> None:
    """Start the servers and keep them running until an exception, as by a signal, ends it; then none of them is left.

    Raises:
        ServerGivenUp: one of them does not stay.
    """
    told = False
    try:
        for server in servers:
            server.start()
        while True:
            for server in servers:
                server.look()
            if not told and all(server.is_ready for server in servers):
                told = True
                once_ready()
            time.sleep(POLL_S)
    finally:
        for server in servers:
            server.stop()


def end_left_behind(folder: Path, ports: list[int]) -> None:
    """End servers on these ports that a killed call left behind.

    Raises:
        ConfigError: another call, which is still running, watches one of them.
    """
    for port in ports:
        file = folder / f"server-{port}.json"
        if not file.exists():
            continue
        record = json.loads(file.read_text())
        if (owner := find_process(record["owner"])) is not None:
            raise ConfigError(f"process {owner.pid} watches a server on port {port} already; end it, or use its server")
        left = find_process(record["server"]) if record["server"] else _started_by(record["command"])
        if left is not None:
            family = left.children(recursive=True)
            for process in [left, *family]:
                end_process(process)
        file.unlink(missing_ok=True)


def _started_by(command: list[str]) -> psutil.Process | None:
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cmdline() == command:
                return process
    return None
