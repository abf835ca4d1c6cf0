"""Connects to the Prefect server of `PREFECT_API_URL`, or starts one that lives as long as this process.

`configure` has to be called before prefect is imported, because Prefect reads its settings once. We start the server
ourselves instead of letting Prefect do it, for three reasons: its output goes to a file (a server started by Prefect
keeps standard output open, so a caller that captures our output would hang after a kill); it is outside the terminal's
process group, so Ctrl-C reaches only us; and its process id is on disk, so the next command can end a server left by a
killed process.
"""

import atexit
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from configs.disk.files import write_json
from configs.disk.sqlite import sqlite_url
from configs.errors import ConfigError
from flows.stopping import held_back
from tasks.running.safe_path import with_safe_path

HOST = "127.0.0.1"
STARTUP_TIMEOUT_S = 300
RESTART_AFTER_S = 2.0
LONGEST_RESTART_S = 120.0
APP = "prefect.server.api.server:create_app"
DATABASE_SETTINGS = ("PREFECT_SERVER_DATABASE_", "PREFECT_API_DATABASE_")
SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": str(STARTUP_TIMEOUT_S),
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "regroup",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
    "PREFECT_CLI_PROMPT": "false",
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_CONFIGURE_LOGGING": "false",
}


def configure(workspace: Path) -> None:
    """Set the environment variables of Prefect and MLflow that the user has not set."""
    os.environ.setdefault("PREFECT_HOME", str(workspace.resolve() / ".prefect"))
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    url = sqlite_url(database_file(), "aiosqlite")
    if "?" in url and not any(name.startswith(DATABASE_SETTINGS) for name in os.environ):
        os.environ["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = url  # Prefect's own would end at the sign in the path


def database_file() -> Path:
    """Where a server that we start keeps its SQLite database."""
    return Path(os.environ["PREFECT_HOME"]).expanduser().absolute() / "prefect.db"


@contextmanager
def connected(workspace: Path, meanwhile: Callable[[], None] = lambda: None) -> Iterator[str]:
    """The API address of a running server, for as long as the context is open.

    Args:
        meanwhile: work that needs no server, called in the ten seconds while it starts; an exception ends the server.

    Raises:
        ConfigError: PREFECT_API_URL is set, but no server answers there.
    """
    configure(workspace)
    from prefect.settings import PREFECT_API_URL, temporary_settings

    end_leftovers(workspace)
    if url := PREFECT_API_URL.value():
        check_answers(url)
        meanwhile()
        yield url
        return
    server = start_embedded(workspace)
    try:
        with temporary_settings({PREFECT_API_URL: server.api_url}):
            meanwhile()
            server.wait_until_up()
            server.keep_up()
            yield server.api_url
    finally:
        server.stop()


@contextmanager
def making_database(workspace: Path) -> Iterator[None]:
    """Create Prefect's database, if missing, while the block runs; its hundred migrations would delay the first run."""
    configure(workspace)
    if database_file().exists() or "PREFECT_API_URL" in os.environ:
        yield
        return
    server = start_embedded(workspace)
    try:
        yield
        server.wait_until_up()
    finally:
        server.stop()


def check_answers(url: str) -> None:
    """Raise ConfigError if no healthy server answers at PREFECT_API_URL, whose value is `url`."""
    if not answers(url, timeout_s=10):
        raise ConfigError(f"PREFECT_API_URL={url} does not answer; start that server, or unset the variable")


def answers(api_url: str, timeout_s: float = 2) -> bool:
    """Whether a Prefect server is healthy at `api_url`."""
    try:
        with urllib.request.urlopen(f"{api_url}/health", timeout=timeout_s) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


class Server:
    """A Prefect server started by this process, and the PID file from which a later process finds it."""

    def __init__(self, port: int, pid_file: Path, log: Path, command: list[str], env: dict[str, str]) -> None:
        self.port = port
        self.pid_file = pid_file
        self.log = log
        self._command = command
        self._env = env
        self._starting = threading.Lock()
        self._stopping = threading.Event()
        with held_back():
            self.process = self._start()
            atexit.register(self.stop)

    def _start(self) -> subprocess.Popen[bytes]:
        _record(self.pid_file, self.port, None)
        with self.log.open("ab") as output:
            process = subprocess.Popen(
                self._command,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        _record(self.pid_file, self.port, identity_of(process.pid))
        return process

    def keep_up(self) -> None:
        """From now on, start the server again on its port and its database whenever it ends, as by a kill."""
        threading.Thread(target=self._keep_up, name="keeping Prefect up", daemon=True).start()

    def _keep_up(self) -> None:
        pause_s = RESTART_AFTER_S
        while not self._stopping.wait(pause_s):
            if self.process.poll() is None:
                pause_s = RESTART_AFTER_S
                continue
            with self._starting:
                if not self._stopping.is_set():
                    self.process = self._start()
            pause_s = min(2 * pause_s, LONGEST_RESTART_S)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def api_url(self) -> str:
        return f"{self.url}/api"

    def wait_until_up(self) -> None:
        """Wait until the server answers; raises RuntimeError if it ends or does not answer within STARTUP_TIMEOUT_S."""
        deadline = time.monotonic() + STARTUP_TIMEOUT_S
        while not answers(self.api_url):
            if self.process.poll() is not None:
                raise RuntimeError(f"Prefect's server ended with code {self.process.returncode}; see {self.log}")
            if time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"Prefect's server did not answer within {STARTUP_TIMEOUT_S} s; see {self.log}")
            time.sleep(0.2)

    def stop(self) -> None:
        """End the server; does nothing if it has ended already."""
        with self._starting:
            self._stopping.set()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.pid_file.unlink(missing_ok=True)
        atexit.unregister(self.stop)


def start_embedded(workspace: Path) -> Server:
    """Start Prefect's ephemeral server (no pages, no scheduler) on a free loopback port; does not wait for it."""
    env = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
    return _start(workspace, free_port(), env)


def start_full(workspace: Path, port: int) -> Server:
    """Start a server with pages and scheduler, and wait until it answers."""
    api_url = f"http://{HOST}:{port}/api"
    env = {"PREFECT_UI_ENABLED": "1", "PREFECT_SERVER_UI_API_URL": api_url, "PREFECT_UI_API_URL": api_url}
    server = _start(workspace, port, env)
    server.wait_until_up()
    server.keep_up()
    return server


def _start(workspace: Path, port: int, env: dict[str, str]) -> Server:
    import prefect

    folder = _folder(workspace)
    log = folder / "server.log"
    app = ["--app-dir", str(Path(prefect.__file__).parent), "--factory", APP]
    address = ["--host", HOST, "--port", str(port), "--log-level", "error", "--lifespan", "on"]
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    pid_file = folder / f"server-{os.getpid()}-{port}.json"
    command = [sys.executable, "-m", "uvicorn", *app, *address]
    return Server(port, pid_file, log, command, {**environment, **with_safe_path(), **env})


def _record(pid_file: Path, port: int, server: dict[str, float] | None) -> None:
    """Write the PID file; first without a server, before that starts, as this process may be killed in between."""
    write_json(pid_file, {"server": server, "owner": identity_of(), "port": port})


def free_port(first: int = 0) -> int:
    """The port `first` if it is free, otherwise any free port of the loopback address."""
    with socket.socket() as probe, suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a server that just ended does not hold its port
        probe.bind((HOST, first))
        return int(probe.getsockname()[1])
    return free_port()


# ---- processes ------------------------------------------------------------------------------------------------------


def end_leftovers(workspace: Path) -> list[int]:
    """End the servers whose owner was killed; returns the ids of those that were still running.

    A process is identified by its id and its start time, so a later process with the same id is left alone.
    """
    ended = []
    for file in _folder(workspace).glob("server-*.json"):
        try:
            record = json.loads(file.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            continue
        if find_process(record["owner"]) is not None:
            continue
        server = find_process(record["server"]) if record["server"] else _server_on(record["port"])
        if server is not None:
            end_process(server)
            ended.append(server.pid)
        file.unlink(missing_ok=True)
    return ended


def end_process(process: psutil.Process, grace_s: float = 5) -> None:
    """Send SIGTERM, then SIGKILL if the process does not end within `grace_s`."""
    with suppress(psutil.NoSuchProcess):
        process.terminate()
        try:
            process.wait(grace_s)
        except psutil.TimeoutExpired:
            process.kill()


def identity_of(pid: int | None = None) -> dict[str, float]:
    """What finds a process again; of this one by default."""
    pid = os.getpid() if pid is None else pid
    return {"pid": pid, "started": psutil.Process(pid).create_time()}


def find_process(identity: dict[str, float]) -> psutil.Process | None:
    """The process with the recorded id and start time; None if it is gone or a zombie."""
    try:
        process = psutil.Process(int(identity["pid"]))
        is_same = abs(process.create_time() - identity["started"]) < 1
        return process if is_same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def _server_on(port: int) -> psutil.Process | None:
    """The server that was started on a port, found by its command line."""
    wanted = {APP, "--port", str(port)}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if wanted <= set(process.cmdline()):
                return process
    return None


def _folder(workspace: Path) -> Path:
    folder = workspace.resolve() / ".prefect"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
