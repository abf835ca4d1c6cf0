"""The commands `regroup serve`, which runs on a schedule, and `regroup ui`, which serves MLflow's and Prefect's pages.

Both listen on the loopback address only, because the servers of Prefect and MLflow have no authentication.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from configs.errors import ConfigError
from configs.reader import load_config
from flows.prefect_server import HOST, answers, check_answers, configure, end_leftovers, free_port, start_full
from tasks.showing.terminal import Terminal
from tasks.tracking.server import tracking_uri

if TYPE_CHECKING:
    from prefect.runner import Runner

PREFECT_PORT = 4200
PAGE_TIMEOUT_S = 120


# ---- serve ----------------------------------------------------------------------------------------------------------


def serve_config(path: Path, overrides: tuple[str, ...], cron: str) -> None:
    """Register the deployment `align-next/<run>` and run it on its schedule until Ctrl-C.

    Raises:
        ConfigError: the configuration or the schedule is faulty, or no server answers at PREFECT_API_URL.
    """
    root, terminal = Path.cwd(), Terminal()
    config = load_config(path, list(overrides))
    configure(root)
    _check_cron(cron)
    with _until_signal(), _any_server(root) as api_url:
        from prefect.settings import PREFECT_API_URL, temporary_settings
        from prefect.types.entrypoint import EntrypointType

        with temporary_settings({PREFECT_API_URL: api_url}):
            from flows.schedule import align_next

            name = config.run_name
            terminal.say(f"serving {align_next.name}/{name}, schedule {cron!r}")
            terminal.say(f"page       {api_url.removesuffix('/api')}")
            terminal.say(f"run now    PREFECT_API_URL={api_url} prefect deployment run {align_next.name}/{name}")
            terminal.say("Ctrl-C ends the schedule")
            runner = _runner(name)
            runner.add_flow(
                align_next,
                name=name,
                cron=cron,
                parameters={"config": config.model_dump(mode="json")},
                entrypoint_type=EntrypointType.MODULE_PATH,
            )
            asyncio.run(runner.start())


def _runner(name: str) -> "Runner":
    """Prefect's runner with two changes.

    SIGTERM ends it as Ctrl-C does, because Prefect's own handler does not await the call that pauses the schedule. And
    when it ends it asks its runs to stop, where Prefect's would wait until they have finished all their rounds.
    """
    from prefect.runner import Runner

    class StoppingRunner(Runner):
        def handle_sigterm(self, *args: Any, **kwargs: Any) -> None:
            signal.raise_signal(signal.SIGINT)

        async def __aexit__(self, *exc_info: Any) -> None:
            _ask_runs_to_stop()
            await super().__aexit__(*exc_info)

    return StoppingRunner(name=name)


def _ask_runs_to_stop() -> None:
    """Send SIGTERM to the flow runs among this process's children; each stops at its next step boundary.

    Children that have ended are passed over: Ctrl-C reaches them too, and may end them first.
    """
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            if "uvicorn" not in child.cmdline():
                child.terminate()


def _check_cron(cron: str) -> None:
    """Raise ConfigError if `cron` is not a valid schedule."""
    from prefect.client.schemas.schedules import CronSchedule
    from pydantic import ValidationError

    try:
        CronSchedule(cron=cron)
    except (ValidationError, ValueError) as error:
        raise ConfigError(f'--cron {cron!r} is no schedule; five fields, for instance "0 2 * * *" for 02:00') from error


@contextmanager
def _any_server(root: Path) -> Iterator[str]:
    """The API address of a server: PREFECT_API_URL if set, else one that answers on the usual port, else a new one."""
    from prefect.settings import PREFECT_API_URL

    default_url = f"http://{HOST}:{PREFECT_PORT}/api"
    if url := PREFECT_API_URL.value():
        check_answers(url)
        yield url
    elif answers(default_url):
        yield default_url
    else:
        end_leftovers(root)
        server = start_full(root, free_port(PREFECT_PORT))
        try:
            yield server.api_url
        finally:
            server.stop()


# ---- ui -------------------------------------------------------------------------------------------------------------


def show_pages(root: Path, port: int, *, with_prefect: bool) -> None:
    """Print the addresses of the pages and wait for Ctrl-C; the servers that were started are then ended."""
    terminal = Terminal()
    with _until_signal(), ExitStack() as servers:
        terminal.say(f"MLflow     {servers.enter_context(_mlflow_page(root, port))}")
        if with_prefect:
            configure(root)
            terminal.say(f"Prefect    {servers.enter_context(_any_server(root)).removesuffix('/api')}")
        terminal.say("Ctrl-C ends")
        signal.pause()


@contextmanager
def _mlflow_page(root: Path, port: int) -> Iterator[str]:
    """The address of the tracking server, or of a page that is served on the workspace's own store."""
    uri = tracking_uri(root)
    if uri.startswith("http"):
        yield uri
        return
    port = free_port(port)
    command = [
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        uri,
        "--host",
        HOST,
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    artifacts = ["--default-artifact-root", (root.absolute() / "mlartifacts").as_uri()]
    log = root / ".prefect" / "mlflow-page.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, *command, *artifacts],
            env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _wait_for_page(process, f"http://{HOST}:{port}/health", log)
        yield f"http://{HOST}:{port}"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def _wait_for_page(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + PAGE_TIMEOUT_S
    while not _opens(url):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"MLflow's page did not come up; see {log}")
        time.sleep(0.2)


def _opens(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@contextmanager
def _until_signal() -> Iterator[None]:
    """End the block on Ctrl-C and on SIGTERM, so that its servers are ended too.

    Both handlers are set, because a shell starts background jobs with SIGINT ignored, and SIGTERM by default ends the
    process at once.
    """
    with suppress(KeyboardInterrupt):
        for signal_number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signal_number, signal.default_int_handler)
        yield
