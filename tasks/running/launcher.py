"""Runs a stage's body in the flow's process or as a child job (`tasks.job`), as the configuration's `launcher` says."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from configs import errors
from configs.disk.files import whole_lines, write_json
from configs.disk.heartbeat import Heart
from configs.schema.run import LauncherConfig
from reward_training.transformer.precision import pick_device
from tasks.running.job_events import AGENT, EVENTS, HEART, JOB, JOBS, LOOK_EVERY_S, STOP, Event, Job, StageKind
from tasks.running.machines import (
    Machine,
    Watch,
    faults_of,
    interface_towards,
    is_of_this_machine,
    wait_for_machines,
)
from tasks.running.safe_path import with_safe_path
from tasks.running.stage import Body, Context, SpecT

LAST_LINES = 30
GRACE_S = 10.0
"""between SIGTERM and SIGKILL"""


def launched(launcher: LauncherConfig, stage: StageKind, body: Body[SpecT], run_dir: Path | None = None) -> Body[SpecT]:
    """`body`, wrapped so that it runs where the launcher says. A job's folder lies in `run_dir`, which all machines of a job
    have to see; by default in a temporary one."""
    if launcher.kind == "inline":
        return body

    def run_as_job(spec: SpecT, out_dir: Path, context: Context) -> None:
        with (
            TemporaryDirectory(prefix="regroup-job-") as name,
            _job_folder((run_dir or Path(name)) / JOBS, stage) as job_dir,
        ):
            meets_here = launcher.num_machines == 1 and launcher.config_file is None
            job = Job(
                stage=stage,
                spec=spec.model_dump(mode="json"),
                out_dir=str(out_dir.resolve()),
                workspace=str(Path.cwd()),
                launcher=launcher,
                stores=name if meets_here else None,
            )
            write_json(job_dir / JOB, job.model_dump(mode="json"))
            with Heart(job_dir / HEART, socket.gethostname()):
                machines = []
                if is_of_several_machines(job):
                    interface_towards(launcher.rendezvous or "")
                    if not is_of_this_machine(launcher.rendezvous or ""):
                        context.warn(f"launcher.rendezvous={launcher.rendezvous!r} is no address of this machine")
                    machines = wait_for_machines(launcher, job_dir, _run_of(job_dir), context)
                _run_job(job, job_dir, machines, context)

    return run_as_job


@contextmanager
def _job_folder(jobs: Path, stage: StageKind) -> Iterator[Path]:
    """A new folder in `jobs`; what a killed flow left there goes, since there is one job at a time."""
    shutil.rmtree(jobs, ignore_errors=True)
    folder = jobs / f"{stage}-{uuid.uuid4().hex[:8]}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        (folder / JOB).unlink(missing_ok=True)  # first: what waits for the job sees by this that it has ended
        shutil.rmtree(jobs, ignore_errors=True)


def _run_of(job_dir: Path) -> str:
    return job_dir.parent.parent.name


def is_of_several_machines(job: Job) -> bool:
    return job.stage == "policy" and job.launcher.num_machines > 1


def command(job: Job, job_dir: Path, machine: int = 0) -> list[str]:
    """The command line that starts the job on one of its machines. Only the policy is trained by several processes.

    On one machine torchrun's agent and the ranks meet in files: the store that they would open listens on all interfaces. On several,
    the agent of machine 0 opens it at the rendezvous; its ranks are the first.
    """
    launcher = job.launcher
    python, module = [sys.executable, "-m"], ["tasks.job", str(job_dir), str(os.getpid())]
    if launcher.kind == "process" or job.stage != "policy":
        return [*python, *module]
    if launcher.config_file is not None:
        launch = ["accelerate.commands.launch", "--config_file", launcher.config_file]
        return [*python, *launch, "--num_processes", str(launcher.num_processes), "--module", *module]
    if launcher.num_machines == 1:
        assert job.stores is not None
        meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", str(Path(job.stores) / AGENT)]
        meeting += ["--rdzv-conf", "store_type=file"]
    else:
        assert launcher.rendezvous is not None
        meeting = ["--nnodes", str(launcher.num_machines), "--node-rank", str(machine), "--rdzv-backend", "static"]
        meeting += ["--rdzv-endpoint", launcher.rendezvous, "--rdzv-id", job_dir.name]
    ranks = ["--nproc-per-node", str(launcher.ranks_per_machine)]
    return [*python, "torch.distributed.run", *meeting, *ranks, "-m", *module]


def _run_job(job: Job, job_dir: Path, machines: list[Machine], context: Context) -> None:
    """Start the job, pass its events on to the flow, and wait for its end.

    Raises:
        JobFailed: it, or its part on another machine, ended with a code other than 0. An error of ours that it reported is
            raised as itself instead.
    """
    output, events = job_dir / "output.log", job_dir / EVENTS
    watch, lost = Watch(machines), None
    with output.open("wb") as log, started(job, job_dir, log) as process:
        offset = 0
        failure: Event | None = None
        ended = False
        while not ended and lost is None:
            ended = process.poll() is not None  # one more pass after the end, for the last events
            lines = whole_lines(events, offset) if events.exists() else []
            offset += sum(map(len, lines))
            for line in lines:
                failure = _pass_on(Event.model_validate_json(line), context) or failure
            if context.should_stop():
                (job_dir / STOP).touch()
            if not ended:
                lost = watch.fault()
                time.sleep(LOOK_EVERY_S)
    written = output.read_text(encoding="utf-8", errors="replace").splitlines()
    logging.getLogger("regroup").info("%s, child job:\n%s", job.stage, "\n".join(written))
    if failure is not None and failure.error in errors.BY_NAME:
        raise errors.BY_NAME[failure.error](failure.text)
    if process.returncode != 0 and (job_dir / STOP).exists() and not machines:
        raise errors.StageStopped(f"the child job of {job.stage} was asked to stop, and ended while it waited")
    if lost is not None or process.returncode != 0:
        why = f" ({failure.error}: {failure.text})" if failure is not None else ""
        ending = [lost or f"the child job of {job.stage} ended with {exit_reason(process.returncode)}{why}"]
        if lost is None and machines:
            ending += faults_of(machines)
        raise errors.JobFailed(
            f"{'; '.join(ending)}; the same command goes on from the last checkpoint. Its last lines:\n"
            + "\n".join(written[-LAST_LINES:])
        )


@contextmanager
def started(job: Job, job_dir: Path, output: IO[bytes], machine: int = 0) -> Iterator[subprocess.Popen[bytes]]:
    """Start the job in its own session: Ctrl-C reaches only the flow, which lets the job end at a step boundary."""
    process = subprocess.Popen(
        command(job, job_dir, machine),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=environment(job),
        start_new_session=True,
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


def environment(job: Job) -> dict[str, str]:
    """The job's environment; where its ranks are all on this machine, they communicate over loopback."""
    variables = os.environ | with_safe_path()
    on_cpu = {"ACCELERATE_USE_CPU": "true"} if pick_device().type == "cpu" else {}
    if is_of_several_machines(job):
        interface = interface_towards(job.launcher.rendezvous or "")
        return variables | on_cpu | _over("GLOO_SOCKET_IFNAME", interface)
    if on_cpu:
        variables |= on_cpu | _over("GLOO_SOCKET_IFNAME", "lo")
    if job.launcher.config_file is None:
        variables |= {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"} | _over("NCCL_SOCKET_IFNAME", "lo")
    return variables


def _over(variable: str, interface: str) -> dict[str, str]:
    return {variable: os.environ.get(variable, interface)}


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


def exit_reason(return_code: int) -> str:
    return signal.Signals(-return_code).name if return_code < 0 else f"exit code {return_code}"
