"""Runs a stage's body in the flow's process or as a child job (`tasks.job`), as the configuration's `launcher` says."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from configs import errors
from configs.disk.files import whole_lines, write_json
from configs.schema.config import LauncherConfig
from reward_training.transformer.precision import pick_device
from tasks.running.job_events import EVENTS, JOB, LOOK_EVERY_S, STOP, Event, Job, StageKind
from tasks.running.stage import Body, Context, SpecT

LAST_LINES = 30
GRACE_S = 10.0
"""between SIGTERM and SIGKILL"""


def launched(launcher: LauncherConfig, stage: StageKind, body: Body[SpecT]) -> Body[SpecT]:
    """`body`, wrapped so that it runs where the launcher says."""
    if launcher.kind == "inline":
        return body

    def run_as_job(spec: SpecT, out_dir: Path, context: Context) -> None:
        with TemporaryDirectory(prefix="regroup-job-") as name:
            job_dir = Path(name)
            job = Job(
                stage=stage, spec=spec.model_dump(mode="json"), out_dir=str(out_dir.resolve()), parent=os.getpid()
            )
            write_json(job_dir / JOB, job.model_dump(mode="json"))
            _run_job(command(launcher, stage, job_dir), job_dir, stage, context)

    return run_as_job


def command(launcher: LauncherConfig, stage: StageKind, job_dir: Path) -> list[str]:
    """The command line that starts the job. Only the policy is trained by several processes."""
    python, job = [sys.executable, "-m"], ["tasks.job", str(job_dir)]
    if launcher.kind == "process" or stage != "policy":
        return [*python, *job]
    num_processes = str(launcher.num_processes)
    if launcher.config_file is None:
        return [*python, "torch.distributed.run", "--standalone", "--nproc_per_node", num_processes, "-m", *job]
    launch = ["accelerate.commands.launch", "--config_file", launcher.config_file, "--num_processes", num_processes]
    return [*python, *launch, "--module", *job]


def _run_job(command: list[str], job_dir: Path, stage: str, context: Context) -> None:
    """Start the job, pass its events on to the flow, and wait for its end.

    Raises:
        JobFailed: it ended with a code other than 0. An error of ours that it reported is raised as itself instead.
    """
    output, events = job_dir / "output.log", job_dir / EVENTS
    with output.open("wb") as log, _started(command, log) as process:
        offset = 0
        failure: Event | None = None
        ended = False
        while not ended:
            ended = process.poll() is not None  # one more pass after the end, for the last events
            lines = whole_lines(events, offset) if events.exists() else []
            offset += sum(map(len, lines))
            for line in lines:
                failure = _pass_on(Event.model_validate_json(line), context) or failure
            if context.should_stop():
                (job_dir / STOP).touch()
            if not ended:
                time.sleep(LOOK_EVERY_S)
    written = output.read_text(encoding="utf-8", errors="replace").splitlines()
    logging.getLogger("regroup").info("%s, child job:\n%s", stage, "\n".join(written))
    if failure is not None and failure.error in errors.BY_NAME:
        raise errors.BY_NAME[failure.error](failure.text)
    if process.returncode != 0:
        why = f" ({failure.error}: {failure.text})" if failure is not None else ""
        raise errors.JobFailed(
            f"the child job of {stage} ended with {_exit_reason(process.returncode)}{why}; the same command goes on from the last "
            f"checkpoint. Its last lines:\n" + "\n".join(written[-LAST_LINES:])
        )


@contextmanager
def _started(command: list[str], output: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Start the job in its own session: Ctrl-C reaches only the flow, which lets the job end at a step boundary."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=_environment(), start_new_session=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _environment() -> dict[str, str]:
    """The job's environment; on CPU, its ranks are on this machine and communicate over loopback."""
    environment = dict(os.environ)
    if pick_device().type == "cpu":
        environment |= {"ACCELERATE_USE_CPU": "true", "GLOO_SOCKET_IFNAME": environment.get("GLOO_SOCKET_IFNAME", "lo")}
    return environment


def _pass_on(event: Event, context: Context) -> Event | None:
    """Pass an event on to the flow; returns the event if it is the job's failure, otherwise None."""
    match event.kind:
        case "written":
            context.written()
        case "warn":
            context.warn(event.text)
        case "say":
            context.progress.say(event.text)
        case "progress":
            context.progress.set(event.done, total=event.total, unit=event.unit)
        case "failed":
            return event
    return None


def _exit_reason(return_code: int) -> str:
    return signal.Signals(-return_code).name if return_code < 0 else f"exit code {return_code}"
