"""Running a stage's body in the flow's process or as a child job (`tasks.job`), by the configuration's block `launcher`."""

from __future__ import annotations

import json
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
from configs.disk.files import write_json
from configs.schema.config import LauncherConfig
from reward_training.transformer.precision import pick_device
from tasks.running.job_events import EVENTS, JOB, LOOK_EVERY_S, STOP, Event, Job, StageKind
from tasks.running.stage import Body, Context, SpecT

LAST_LINES = 30
GRACE_S = 10.0
"""for a job that is told to end at once"""


def launched(launcher: LauncherConfig, stage: StageKind, body: Body[SpecT]) -> Body[SpecT]:
    """`body`, run where the launcher says."""
    if launcher.kind == "inline":
        return body

    def run(spec: SpecT, out_dir: Path, context: Context) -> None:
        with TemporaryDirectory(prefix="regroup-job-") as name:
            folder = Path(name)
            job = Job(
                stage=stage, spec=spec.model_dump(mode="json"), out_dir=str(out_dir.resolve()), parent=os.getpid()
            )
            write_json(folder / JOB, job.model_dump(mode="json"))
            _run(command(launcher, stage, folder), folder, stage, context)

    return run


def command(launcher: LauncherConfig, stage: StageKind, folder: Path) -> list[str]:
    """What starts the job: of several processes for the policy alone."""
    python, job = [sys.executable, "-m"], ["tasks.job", str(folder)]
    if launcher.kind == "process" or stage != "policy":
        return [*python, *job]
    number = str(launcher.num_processes)
    if launcher.config_file is None:
        return [*python, "torch.distributed.run", "--standalone", "--nproc_per_node", number, "-m", *job]
    launch = ["accelerate.commands.launch", "--config_file", launcher.config_file, "--num_processes", number]
    return [*python, *launch, "--module", *job]


def _run(command: list[str], folder: Path, stage: str, context: Context) -> None:
    """Start the job, pass on what it tells, and see it end."""
    output = folder / "output.log"
    with output.open("wb") as file, _started(command, file) as process, (folder / EVENTS).open("a+b") as events:
        events.seek(0)
        failure: Event | None = None
        ended = False
        while not ended:
            ended = process.poll() is not None  # what it told before it ended is read once more
            for event in _new_events(events):
                failure = _pass_on(event, context) or failure
            if context.should_stop():
                (folder / STOP).touch()
            if not ended:
                time.sleep(LOOK_EVERY_S)
    lines = output.read_text(encoding="utf-8", errors="replace").splitlines()
    logging.getLogger("regroup").info("%s, child job:\n%s", stage, "\n".join(lines))
    if failure is not None and failure.error in errors.BY_NAME:
        raise errors.BY_NAME[failure.error](failure.text)
    if process.returncode != 0:
        why = f" ({failure.error}: {failure.text})" if failure is not None else ""
        raise errors.JobFailed(
            f"the child job of {stage} ended with {_told(process.returncode)}{why}; the same command goes on from the last "
            f"checkpoint. Its last lines:\n" + "\n".join(lines[-LAST_LINES:])
        )


@contextmanager
def _started(command: list[str], output: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """In a session of its own: Ctrl-C reaches the flow, which lets the job end at a step boundary."""
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
    """Jobs on CPUs of this machine speak over loopback."""
    environment = dict(os.environ)
    if pick_device().type == "cpu":
        environment |= {"ACCELERATE_USE_CPU": "true", "GLOO_SOCKET_IFNAME": environment.get("GLOO_SOCKET_IFNAME", "lo")}
    return environment


def _new_events(events: IO[bytes]) -> Iterator[Event]:
    """Whole lines that came since the last look."""
    while True:
        start = events.tell()
        line = events.readline()
        if not line.endswith(b"\n"):
            events.seek(start)
            return
        yield Event.model_validate(json.loads(line))


def _pass_on(event: Event, context: Context) -> Event | None:
    """Tell the flow; returns the event where it is the job's failure."""
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


def _told(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
