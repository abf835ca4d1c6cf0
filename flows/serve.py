"""The commands `regroup serve`, which runs on a schedule, and `regroup ui`, which serves MLflow's and Prefect's pages.

Both listen on the loopback address only, because the servers of Prefect and MLflow have no authentication.
"""

import asyncio
import json
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
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID
from zoneinfo import ZoneInfo

import psutil

from configs.errors import ConfigError
from configs.reader import load_config
from configs.schema.config import Config
from flows.prefect_server import HOST, SETTINGS, answers, check_answers, configure, end_leftovers, free_port, start_full
from flows.serving.scheduled import dated, last_line, left_behind, take
from flows.serving.timezones import UTC, known_zone, local_zone
from flows.stopping import held_back
from tasks.alerting.receivers import refuse_faulty
from tasks.running.safe_path import with_safe_path
from tasks.runs.run_file import refuse_taken_name
from tasks.runs.workspace import lock_holder, refuse_unwritable
from tasks.showing.terminal import Terminal
from tasks.tracking.database import make_ready
from tasks.tracking.server import TRAINING_MODE, tracking_uri, without_password

if TYPE_CHECKING:
    from prefect.runner import Runner

DEPLOYED = "align-next"
"""name of the flow that is deployed"""
PREFECT_PORT = 4200
PAGE_TIMEOUT_S = 120
TRAINING_PAGE = f"/#/experiments?{TRAINING_MODE}"


# ---- serve ----------------------------------------------------------------------------------------------------------


def serve_config(
    path: Path,
    overrides: tuple[str, ...],
    cron: str | None,
    timezone: str | None = None,
    pool: str | None = None,
) -> None:
    """Register the workspace's deployment `align-next/<run>-<id>`, and run it on its schedule until Ctrl-C; with a work pool,
    whose workers run it, only register it.

    Raises:
        ConfigError: the configuration, schedule or pool is faulty, or no server answers at PREFECT_API_URL.
    """
    root, terminal = Path.cwd(), Terminal()
    config = load_config(path, list(overrides))
    refuse_taken_name(root, config.run_name)
    refuse_unwritable(root)
    refuse_faulty(config.alerts)
    if cron is None and pool is None:
        raise ConfigError(
            'say when to run by --cron, for instance --cron "0 2 * * *", or who runs it by --pool NAME; see `regroup serve --help`'
        )
    if cron is None and timezone is not None:
        raise ConfigError(f"--timezone {timezone!r} is of a schedule, and there is no --cron")
    zone = UTC if cron is None else local_zone() if timezone is None else known_zone(timezone)
    configure(root)
    if cron is not None:
        _check_cron(cron, zone)
    with _until_signal(), _any_server(root, stays=pool is not None) as api_url:
        from prefect.settings import PREFECT_API_URL, temporary_settings

        with temporary_settings({PREFECT_API_URL: api_url}):
            os.environ |= with_safe_path()  # of the processes that Prefect's runner starts
            facts = _facts(root, config, cron, zone, pool, terminal)
            if pool is not None:
                _register_at(pool, root, facts)
            else:
                runner = _registered(root, facts, terminal)
                for line in left_behind(root, is_held=lock_holder(root) is not None):
                    terminal.say(dated(line))
            name = f"{DEPLOYED}/{facts['name']}"
            schedule = f", schedule {cron!r} in {zone}{' time' if zone != 'UTC' else ''}" if cron else ""
            terminal.say(f"{'serving' if pool is None else 'deployed'} {name}{schedule}")
            if cron is not None:
                terminal.say(f"next       {_next_time(cron, zone)}")
            terminal.say(f"page       {api_url.removesuffix('/api')}")
            terminal.say(f"run now    PREFECT_API_URL={api_url} prefect deployment run {name}")
            if pool is not None:
                terminal.say(f"worker     PREFECT_API_URL={api_url} prefect worker start --pool {pool}")
                return
            asyncio.run(runner.start())


def _facts(
    root: Path, config: Config, cron: str | None, zone: str, pool: str | None, terminal: Terminal
) -> dict[str, Any]:
    """The facts of the deployment, its name among them, as Prefect takes them."""
    from prefect.schedules import Cron
    from prefect.types.entrypoint import EntrypointType

    from flows.serving.deployments import PARAMETER, deployment_name, left_by_an_earlier_version
    from flows.serving.workspaces import workspace_at

    workspace = workspace_at(root)
    if (left := left_by_an_earlier_version(DEPLOYED, config.run_name)) is not None:
        terminal.warn(
            f"{left} is still scheduled, by an earlier version; if its `regroup serve` has ended: "
            f"prefect deployment delete {left}"
        )
    when = f", `{cron}` in {zone}" if cron else ""
    return {
        "name": deployment_name(config.run_name, workspace),
        "schedule": Cron(cron, timezone=zone) if cron else None,
        "paused": False,
        "parameters": {"config": config.model_dump(mode="json"), PARAMETER: workspace.model_dump(), "pool": pool},
        "tags": [workspace.path],
        "description": f"`{config.run_name}` in `{workspace.path}` on {workspace.host}{when}",
        "entrypoint_type": EntrypointType.MODULE_PATH,
    }


def _registered(root: Path, facts: dict[str, Any], terminal: Terminal) -> "Runner":
    """A runner, named as the deployment that it works for, which is registered on the server."""
    from flows.schedule import align_next

    assert align_next.name == DEPLOYED
    runner = _runner(facts["name"], root, terminal)
    runner.add_flow(align_next, **facts)
    return runner


def _register_at(pool: str, root: Path, facts: dict[str, Any]) -> None:
    """Register the deployment at a work pool."""
    from flows.schedule import align_next
    from flows.serving.pools import job_variables, read_pool

    variables = job_variables(read_pool(pool), root, SETTINGS)
    deployment: Any = align_next.to_deployment(**facts, work_pool_name=pool, job_variables=variables)
    deployment.apply()


def _runner(name: str, root: Path, terminal: Terminal) -> "Runner":
    """Prefect's runner with four changes.

    SIGTERM ends it as Ctrl-C does, because Prefect's own handler does not await the call that pauses the schedule.
    When it ends it asks its runs to stop, where Prefect's would wait until they have finished all their rounds. And
    it says what came of each run when the run's process has ended, however it did. While Prefect's server is away it waits
    for it, where Prefect's would end.
    """
    from prefect.runner import Runner

    from flows.telling.patience import patient

    waiting = ExitStack()
    patience = waiting.enter_context(patient(terminal.warn))

    class StoppingRunner(Runner):
        def handle_sigterm(self, *args: Any, **kwargs: Any) -> None:
            signal.raise_signal(signal.SIGINT)

        async def __aenter__(self) -> Self:
            await super().__aenter__()
            processes = self._process_manager
            remove = processes.remove

            async def remove_and_tell(flow_run_id: UUID) -> None:
                handle = processes.get(flow_run_id)
                exit_code = None if handle is None else handle.returncode
                terminal.say(dated(last_line(take(root, str(flow_run_id)), exit_code)))
                await remove(flow_run_id)

            processes.remove = remove_and_tell  # type: ignore[method-assign]
            terminal.say("Ctrl-C ends the schedule")  # from here on an end pauses it
            return self

        async def __aexit__(self, *exc_info: Any) -> None:
            waiting.close()
            self.pause_on_shutdown = not patience.is_away
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


def _check_cron(cron: str, zone: str) -> None:
    """Raise ConfigError if `cron` is not a valid schedule."""
    from prefect.client.schemas.schedules import CronSchedule
    from pydantic import ValidationError

    try:
        CronSchedule(cron=cron, timezone=zone)
    except (ValidationError, ValueError) as error:
        raise ConfigError(f'--cron {cron!r} is no schedule; five fields, for instance "0 2 * * *" for 02:00') from error


def _next_time(cron: str, zone: str) -> str:
    """When the schedule runs next, in its time zone, for instance `2026-03-29 03:00 CEST`."""
    from prefect.server.schemas.schedules import CronSchedule

    times = asyncio.run(CronSchedule(cron=cron, timezone=zone).get_dates(1))
    return f"{times[0].astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M %Z}" if times else "never"


@contextmanager
def _any_server(root: Path, *, stays: bool = False) -> Iterator[str]:
    """The API address of a server: PREFECT_API_URL if set, else one that answers on the usual port, else a new one.

    Raises:
        ConfigError: PREFECT_API_URL does not answer; or the server has to stay when this process ends, and there is none.
    """
    from prefect.settings import PREFECT_API_URL

    default_url = f"http://{HOST}:{PREFECT_PORT}/api"
    if url := PREFECT_API_URL.value():
        check_answers(url)
        yield url
    elif answers(default_url):
        yield default_url
    elif stays:
        raise ConfigError(
            "--pool needs a Prefect server that stays: set PREFECT_API_URL, or leave `prefect server start` or `regroup ui` running"
        )
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
    refuse_unwritable(root)
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
        yield without_password(uri).rstrip("/") + TRAINING_PAGE
        return
    make_ready(uri, Terminal().warn)
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
    with ExitStack() as ended:
        with held_back(), log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, *command, *artifacts],
                env=os.environ
                | with_safe_path()
                | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            ended.callback(_end, process)
        _wait_for_page(process, f"http://{HOST}:{port}/health", log)
        yield f"http://{HOST}:{port}{_newest_experiment(port)}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and those that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    process.wait()


def _newest_experiment(port: int) -> str:
    """The page of the runs of the experiment that changed last; without one, the page of all experiments."""
    request = urllib.request.Request(
        f"http://{HOST}:{port}/api/2.0/mlflow/experiments/search",
        data=json.dumps({"max_results": 2, "order_by": ["last_update_time DESC"]}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=PAGE_TIMEOUT_S) as response:
        experiments = json.load(response).get("experiments", [])
    ids = [experiment["experiment_id"] for experiment in experiments if experiment["name"] != "Default"]
    return f"/#/experiments/{ids[0]}/runs?{TRAINING_MODE}" if ids else TRAINING_PAGE


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
