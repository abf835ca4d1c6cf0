"""Opens a run for a flow: log file, tracking, signal handlers, and at the end summary and report.

The caller holds the workspace lock.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from prefect.runtime import flow_run

from configs.errors import StageStopped
from flows.stopping import Stop
from flows.summary import summarise, write_summary
from tasks.running.run import Run
from tasks.runs.facts import Status
from tasks.runs.run_file import RunFile, read_run, stored_config
from tasks.runs.workspace import run_folder
from tasks.showing.report import write_report
from tasks.showing.terminal import Terminal, log_to
from tasks.tracking.tracker import Tracking

stop = Stop()
"""the process-wide stop request; signal handlers are process-wide too"""

MLFLOW_STATUS: dict[str, Status] = {"done": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
_current: ContextVar[Run] = ContextVar("current run")


def current_run() -> Run:
    """The run of the current flow. It cannot be a parameter of the flow, because Prefect stores those as JSON."""
    return _current.get()


@contextmanager
def working_on(root: Path, file: RunFile, *, sums_up: bool = False) -> Iterator[Run]:
    """The run, ready to execute stages.

    However the block ends, its status is sent to MLflow; with `sums_up`, for a block that works through all rounds,
    summary and report are written too.
    """
    run = _open(root, file)
    token = _current.set(run)
    status = "failed"
    with log_to(run.folder / "log.txt"), stop.listening():
        try:
            run.tracking.start()
            yield run
            status = "done"
        except (StageStopped, KeyboardInterrupt):
            status = "stopped"
            raise
        except Exception as error:
            logging.getLogger("regroup").exception("run %s failed", run.name)
            error.add_note(f"the whole story is in {run.folder / 'log.txt'}")
            raise
        finally:
            _current.reset(token)
            try:
                if sums_up:
                    _sum_up(run, status)
            finally:
                run.tracking.finish(MLFLOW_STATUS[status])


def _open(root: Path, file: RunFile) -> Run:
    config, folder, console = stored_config(file), run_folder(root, file.name), Terminal()
    return Run(
        config=config,
        name=file.name,
        folder=folder,
        workspace=root,
        tracking=Tracking(root, folder, name=file.name, uid=file.uid, config=config, warn=console.warn),
        console=console,
        should_stop=stop,
        prefect_flow_run_id=flow_run.id,
    )


def _sum_up(run: Run, status: str) -> None:
    """Write summary.json and report.html, unless the run ended before its first policy was prepared."""
    if read_run(run.workspace, run.name).given_policy is None:
        return
    mlflow = {
        "tracking_uri": run.tracking.display_uri,
        "experiment_id": run.tracking.experiment_id,
        "run_id": run.tracking.run_id,
    }
    write_report(run.folder)
    summary = summarise(run.workspace, run.name, status=status, mlflow=mlflow, flow_run_id=run.prefect_flow_run_id)
    write_summary(run.workspace, summary | {"seconds": run.clock.facts()})
