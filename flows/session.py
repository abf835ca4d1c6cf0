"""Opens a run for a flow: log file, tracking, signal handlers, and at the end summary and report.

The caller holds the workspace lock.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path

from prefect.runtime import flow_run

from configs.errors import StageStopped, WorkspaceBusy
from configs.schema.config import Config
from flows.stopping import Stop
from flows.summary import summarise, write_summary
from flows.telling import teller
from tasks.alerting.alerts import Alerts
from tasks.alerting.happenings import tell_failed, tell_finished, tell_interrupted, tell_skipped
from tasks.running.clock import Clock
from tasks.running.run import Run
from tasks.runs.facts import Status
from tasks.runs.run_file import RunFile, read_run, stored_config
from tasks.runs.times import killed_calls
from tasks.runs.workspace import run_folder
from tasks.showing.report import write_report
from tasks.showing.terminal import Terminal, log_to
from tasks.tracking.tracker import Tracking

stop = Stop()
"""the process-wide stop request; signal handlers are process-wide too"""

MLFLOW_STATUS: dict[str, Status] = {"done": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
_current: ContextVar[Run] = ContextVar("current run")
_beside: ContextVar[tuple[str, ...]] = ContextVar("runs beside", default=())
_previous_ended_s: float | None = None
"""when this process ended its work on a run last, in seconds since the epoch: the time of its next run begins there, and that of
the first one with the process"""


def current_run() -> Run:
    """The run of the current flow. It cannot be a parameter of the flow, because Prefect stores those as JSON."""
    return _current.get()


@contextmanager
def beside(*names: str) -> Iterator[None]:
    """Runs that are worked on in the block copy from those of these names what they measured alike."""
    token = _beside.set(names)
    try:
        yield
    finally:
        _beside.reset(token)


@contextmanager
def working_on(root: Path, file: RunFile, *, sums_up: bool = False) -> Iterator[Run]:
    """The run, ready to execute stages.

    However the block ends, its status is sent to MLflow; with `sums_up`, for a block that works through all rounds,
    summary and report are written too.
    """
    teller.settle()
    run = _open(root, file)
    token = _current.set(run)
    status = "failed"
    with log_to(run.folder / "log.txt"), stop.listening():
        try:
            tell_interrupted(run.alerts, killed_calls(run.folder, run.clock.now()))
            run.note_time()
            run.alerts.send()
            run.tracking.start()
            yield run
            status = "done"
        except (StageStopped, KeyboardInterrupt):
            status = "stopped"
            raise
        except Exception as error:
            if sums_up:
                tell_failed(run.alerts, error)
            logging.getLogger("regroup").exception("run %s failed", run.name)
            error.add_note(f"the whole story is in {run.folder / 'log.txt'}")
            raise
        finally:
            _current.reset(token)
            with (
                ExitStack() as closing
            ):  # from the last line to the first, and on a full disk each of them all the same
                closing.callback(_note_end)
                closing.callback(run.alerts.finish)
                closing.callback(_say_what_is_missing, run)
                closing.callback(run.tracking.finish, MLFLOW_STATUS[status])
                if sums_up:
                    closing.callback(_sum_up, run, status)
                run.note_time(ended=True)


def _note_end() -> None:
    global _previous_ended_s
    _previous_ended_s = time.time()


def alerts_of(root: Path, config: Config, *, run: str, uid: str, warn: Callable[[str], None]) -> Alerts:
    """The alerts of a run, also sent as events of Prefect in a flow."""
    return Alerts(root, config.alerts, run=run, uid=uid, flow_run=flow_run.id, warn=warn)


@contextmanager
def telling_of_failures(root: Path, config: Config) -> Iterator[None]:
    """Send alerts if the block, in which no run is open yet, fails or finds the workspace held by another run."""
    alerts = alerts_of(root, config, run=config.run_name, uid=config.run_name, warn=Terminal().warn)
    try:
        yield
    except WorkspaceBusy as error:
        tell_skipped(alerts, error)
        raise
    except Exception as error:
        tell_failed(alerts, error)
        raise
    finally:
        alerts.finish()


def _open(root: Path, file: RunFile) -> Run:
    config, folder, console = stored_config(file), run_folder(root, file.name), Terminal()
    return Run(
        config=config,
        name=file.name,
        folder=folder,
        workspace=root,
        tracking=Tracking(root, folder, name=file.name, uid=file.uid, config=config, warn=console.warn),
        console=console,
        alerts=alerts_of(root, config, run=file.name, uid=file.uid, warn=console.warn),
        should_stop=stop,
        prefect_flow_run_id=flow_run.id,
        clock=Clock() if _previous_ended_s is None else Clock(started=_previous_ended_s),
        beside=_beside.get(),
    )


def _say_what_is_missing(run: Run) -> None:
    if (lack := run.tracking.lack) is not None:
        later = "the next run in this folder sends it, or this command again"
        run.console.warn(f"MLflow at {run.tracking.display_uri} lacks {lack}; {later}")


def _sum_up(run: Run, status: str) -> None:
    """Write summary.json and report.html, unless the run ended before its first policy was prepared."""
    if read_run(run.workspace, run.name).given_policy is None:
        return
    mlflow = {
        "tracking_uri": run.tracking.stored_uri,
        "experiment_id": run.tracking.experiment_id,
        "run_id": run.tracking.run_id,
    }
    write_report(run.folder, mlflow)
    summary = summarise(run.workspace, run.name, status=status, mlflow=mlflow, flow_run_id=run.prefect_flow_run_id)
    if status == "done":
        tell_finished(run.alerts, summary)  # before the summary, which ends the run for good
    write_summary(run.workspace, summary)
