"""What another machine does for a run whose policy is trained by several: it waits for each job of the run and joins it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile

from pydantic import ValidationError

from configs.disk.heartbeat import Pulse
from tasks.running.job_events import HEART, JOB, JOBS, LOOK_EVERY_S, START, Job, read_job
from tasks.running.launcher import LAST_LINES, exit_reason, is_of_several_machines, started
from tasks.running.machines import Ending, say_ending, take_number

STOPPED = "a stop on that machine"


def join_jobs(run_dir: Path, is_finished: Callable[[], bool], say: Callable[[str], None]) -> None:
    """Join the jobs of a run that are of several machines, one after the other, until the run is finished.

    A job is joined while its flow's heart beats: one that a killed flow left is passed over.
    """
    pulses: dict[Path, Pulse] = {}
    done: set[Path] = set()
    while not is_finished():
        for job_dir in _open_jobs(run_dir):
            pulse = pulses.setdefault(job_dir, Pulse(job_dir / HEART))
            pulse.silent_s()
            if job_dir not in done and pulse.has_beaten:
                done.add(job_dir)
                _join(job_dir, pulse, say)
        time.sleep(LOOK_EVERY_S)


def _open_jobs(run_dir: Path) -> list[Path]:
    try:
        return [folder for folder in (run_dir / JOBS).iterdir() if (folder / JOB).exists()]
    except OSError:
        return []


def _join(job_dir: Path, flow: Pulse, say: Callable[[str], None]) -> None:
    """Do this machine's part of a job, if the job has one left, and tell the flow how it ended."""
    try:
        job = read_job(job_dir)
    except (OSError, ValidationError):
        return
    count = job.launcher.num_machines
    if not is_of_several_machines(job) or (taken := take_number(job_dir, count)) is None:
        return
    number, heart = taken
    name = f"{job_dir.name}, machine {number + 1} of {count}"
    ending = Ending(code=1, text=STOPPED)
    try:
        while _goes_on(job_dir, flow) and not (job_dir / START).exists():
            time.sleep(LOOK_EVERY_S)
        if _goes_on(job_dir, flow):
            say(f"{name}: started")
            ending = _work(job, job_dir, number, flow)
            say(f"{name}: {'done' if ending.code == 0 else 'ended with ' + ending.text}")
    finally:
        say_ending(job_dir, number, ending)
        heart.__exit__(None, None, None)


def _goes_on(job_dir: Path, flow: Pulse) -> bool:
    """Whether the flow is alive, as far as is seen, and has not ended the job."""
    return not flow.is_lost and (job_dir / JOB).exists()


def _work(job: Job, job_dir: Path, number: int, flow: Pulse) -> Ending:
    with TemporaryFile() as output:
        with started(job, job_dir, output, number) as process:
            while process.poll() is None and _goes_on(job_dir, flow):
                time.sleep(LOOK_EVERY_S)
            if (
                process.poll() is None
            ):  # the flow may have ended the job because all is done: the agent is about to end too
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0 if flow.is_lost else 10)
        if process.returncode == 0:
            return Ending(code=0)
        output.seek(0)
        lines = output.read().decode(errors="replace").splitlines()[-LAST_LINES:]
        print("\n".join(lines), file=sys.stderr, flush=True)
        why = f"{exit_reason(process.returncode)}"
        return Ending(code=process.returncode, text="no sign of life from the flow" if flow.is_lost else why)
