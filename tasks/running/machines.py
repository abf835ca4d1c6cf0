"""The machines that do a job together, as files in its folder, which all of them see.

The flow's machine is number 0: it holds the main rank, which alone writes, so that a flow that is killed leaves no writer behind.
Each other machine takes a number by making a file, in which it then counts (`configs.disk.heartbeat`), and writes how its
part ended. Once all have come, the flow makes the file `start`.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
from pydantic import ValidationError

from configs.disk.files import write_json
from configs.disk.heartbeat import BEAT_S, LOST_AFTER_S, Heart, Pulse, header_of
from configs.errors import ConfigError, JobFailed, StageStopped
from configs.records import Record
from configs.schema.run import LauncherConfig
from tasks.running.job_events import LOOK_EVERY_S, START
from tasks.running.stage import Context

MACHINES = "machines"
TELLING_S = 10.0
"""how long a machine is given to say how its part ended, and to end when another's has failed"""
HINT_AFTER_S = 5.0
"""machines that wait for the job already join sooner; others are told how"""


class Ending(Record):
    """How a machine's part of a job ended."""

    code: int
    """exit code of its agent; negative for a signal"""
    text: str = ""


class Machine:
    """Another machine of a job, as the flow sees it."""

    def __init__(self, job_dir: Path, number: int, count: int) -> None:
        self._heart, self._end = heart_file(job_dir, number), end_file(job_dir, number)
        self._pulse = Pulse(self._heart)
        self._place = f"{number + 1} of {count}"
        self.host: str | None = None
        """its name; None until it joins"""

    def has_joined(self) -> bool:
        self.host = self.host or header_of(self._heart)
        return self.host is not None

    @property
    def ending(self) -> Ending | None:
        with suppress(OSError, ValidationError):
            return Ending.model_validate_json(self._end.read_bytes())
        return None

    def fault(self, silent_s: float = LOST_AFTER_S) -> str | None:
        """What is wrong with it, for instance `machine node2 (2 of 2) ...`; None if nothing is."""
        name, ending = f"machine {self.host} ({self._place})", self.ending
        if ending is not None:
            return f"{name} ended with {ending.text}" if ending.code else None
        if (silent := self._pulse.silent_s()) > silent_s:
            return f"{name} has shown no sign of life for {silent:.0f} s"
        return None


def take_number(job_dir: Path, count: int) -> tuple[int, Heart] | None:
    """A number from 1 on that no other machine has taken, and the heart that holds it, which beats already; None if all are taken."""
    for number in range(1, count):
        heart = Heart(heart_file(job_dir, number), socket.gethostname())
        with suppress(FileExistsError):
            return number, heart.__enter__()
    return None


def say_ending(job_dir: Path, number: int, ending: Ending) -> None:
    """Tell the flow how this machine's part ended; nothing happens if the flow has ended the job."""
    if end_file(job_dir, number).parent.exists():
        with suppress(OSError):
            write_json(end_file(job_dir, number), ending.model_dump())


def heart_file(job_dir: Path, number: int) -> Path:
    return job_dir / MACHINES / f"{number}.heart"


def end_file(job_dir: Path, number: int) -> Path:
    return job_dir / MACHINES / f"{number}.json"


# ---- on the flow's machine ------------------------------------------------------------------------------------------


def wait_for_machines(launcher: LauncherConfig, job_dir: Path, run: str, context: Context) -> list[Machine]:
    """The other machines of a job, once all have joined.

    Raises:
        JobFailed: they did not within `join_timeout_s`.
        StageStopped: the run was asked to stop.
    """
    count = launcher.num_machines
    machines = [Machine(job_dir, number, count) for number in range(1, count)]
    (job_dir / MACHINES).mkdir()
    began, hinted = time.monotonic(), False
    while away := [machine for machine in machines if not machine.has_joined()]:
        waited = time.monotonic() - began
        how = f"on each of them: cd {Path.cwd()} && regroup join {run}"
        if context.should_stop():
            raise StageStopped(f"stopped while it waited for {len(away)} of {count} machines")
        if waited > launcher.join_timeout_s:
            raise JobFailed(
                f"{len(away)} of launcher.num_machines={count} machines did not join within launcher.join_timeout_s="
                f"{launcher.join_timeout_s}; {how}; then the same command goes on from the last checkpoint"
            )
        if waited > HINT_AFTER_S and not hinted:
            context.warn(f"waiting for {len(away)} of {count} machines; {how}")
            hinted = True
        time.sleep(LOOK_EVERY_S)
    (job_dir / START).touch()
    return machines


def faults_of(machines: list[Machine]) -> list[str]:
    """What is wrong with each machine after the job has failed here: they get a moment to say it, or to fall silent."""
    end = time.monotonic() + TELLING_S
    while True:
        told = [machine.fault(silent_s=5 * BEAT_S) for machine in machines]
        if all(told) or time.monotonic() > end:
            return [fault for fault in told if fault is not None]
        time.sleep(LOOK_EVERY_S)


class Watch:
    """Watches the other machines while the job works here."""

    def __init__(self, machines: list[Machine], now: Callable[[], float] = time.monotonic) -> None:
        self._machines = machines
        self._now = now
        self._since: float | None = None

    def fault(self) -> str | None:
        """What is wrong with a machine; one that failed is named only when the ranks here, which usually fail too and then
        tell more, have not ended within TELLING_S."""
        faults = [fault for machine in self._machines if (fault := machine.fault()) is not None]
        if not faults:
            return None
        self._since = self._now() if self._since is None else self._since
        return "; ".join(faults) if self._now() - self._since > TELLING_S else None


# ---- addresses ------------------------------------------------------------------------------------------------------


def interface_towards(rendezvous: str) -> str:
    """The network interface of this machine by which it and the others reach each other: the one towards the rendezvous.

    Raises:
        ConfigError: the host's name is not known here, or stands for this machine's loopback address.
    """
    host, _, port = rendezvous.rpartition(":")
    host = host.strip("[]")
    try:
        family, *_, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(address)
            own = probe.getsockname()[0]
    except OSError as error:
        raise ConfigError(
            f"launcher.rendezvous={rendezvous!r} cannot be reached from {socket.gethostname()}: {error}"
        ) from error
    if _is_loopback(own) and not (host == "localhost" or _is_loopback(host)):
        raise ConfigError(
            f"launcher.rendezvous={rendezvous!r} stands for the loopback address {address[0]} on {socket.gethostname()}, which other "
            "machines do not reach; name the address of its network, or correct /etc/hosts"
        )
    return next(name for name, address in _addresses() if address == own)


def is_of_this_machine(rendezvous: str) -> bool:
    host = rendezvous.rpartition(":")[0].strip("[]")
    known = {address for _, address in _addresses()}
    return any(found[4][0] in known for found in socket.getaddrinfo(host, None))


def _addresses() -> Iterator[tuple[str, str]]:
    """(interface, address) of this machine."""
    for name, addresses in psutil.net_if_addrs().items():
        yield from ((name, address.address.split("%")[0]) for address in addresses)


def _is_loopback(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_loopback
    except ValueError:
        return False
