"""The workspace, which is the current folder: its paths, the lock that a run holds, and the champion."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from configs.disk.files import write_json
from configs.disk.heartbeat import BEAT_S, Heart, Pulse, header_of
from configs.errors import ConfigError, WorkspaceBusy
from configs.paths import Place, StoredPath
from configs.records import Record

BY_HAND = "reward_model_by_hand"
"""a round's folder for reward models that were retrained by hand"""


def runs_folder(root: Path) -> Path:
    return root / "runs"


def run_folder(root: Path, name: str) -> Path:
    return runs_folder(root) / name


def models_folder(root: Path) -> Path:
    return root / "models"


def round_folder(run_dir: Path, round_index: int) -> Path:
    return run_dir / f"round_{round_index:03d}"


def cold_start_folder(run_dir: Path) -> Path:
    return round_folder(run_dir, 0) / "cold_start"


def before_cold_start_folder(run_dir: Path) -> Path:
    """Of what was measured of the policy before its cold start."""
    return round_folder(run_dir, 0) / "before_cold_start"


def reward_model_folder(run_dir: Path, round_index: int, name: str) -> Path:
    return round_folder(run_dir, round_index) / "reward_model" / name


def by_hand_folder(run_dir: Path, round_index: int, name: str) -> Path:
    """Folder of a reward model that was retrained by hand on the pairs up to that round."""
    return round_folder(run_dir, round_index) / BY_HAND / name


def served_file(run_dir: Path, name: str) -> Path:
    """File that keeps what the server of a reward model gave known texts when the run first asked it."""
    return run_dir / "served" / f"{name}.json"


def problems_of_round(run_dir: Path, round_index: int, rounds_asked: list[int]) -> Path:
    """Folder of a round's problems.

    Each time that `rounds` is raised, the added rounds get their own folder: their shards are cut anew from the
    training problems, and the files of earlier rounds stay unchanged.
    """
    covering = next(num_rounds for num_rounds in rounds_asked if num_rounds >= round_index)
    return run_dir / "problems" if covering == rounds_asked[0] else run_dir / f"problems_{covering:03d}"


def is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder, or in the nearest one above it that exists."""
    while not folder.exists():
        folder = folder.parent
    return os.access(folder, os.W_OK | os.X_OK)


def refuse_unwritable(root: Path) -> None:
    """Check that a workspace can be worked in, before a command starts anything.

    Raises:
        ConfigError: the folder, or one of those in it, is read-only.
    """
    for folder in (root, runs_folder(root), root / ".prefect"):
        if not is_writable(folder):
            raise ConfigError(
                f"{folder} cannot be written to; work in another folder, or change its permissions "
                "(status, report, sample, export and doctor need none)"
            )


# ---- the lock -------------------------------------------------------------------------------------------------------


LOCK_PATIENCE_S = 0.5
LOOK_S = 3 * BEAT_S
"""how long a heart is watched to see whether it beats"""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Holder(Record):
    """The process that holds a workspace, and its run."""

    pid: int
    run: str
    started: str
    """local time, for people"""
    command: str = "run"
    """what works on the run: a command such as `run` or `clean`"""
    host: str = ""
    """name of its machine; empty for holders of earlier versions"""
    machine: str = ""
    """what tells its machine from others, `machine_id`"""

    def __str__(self) -> str:
        what = f"run {self.run!r}" if self.command == "run" else f"`regroup {self.command}` of run {self.run!r}"
        return f"{what} on machine {self.host}" if self.is_elsewhere else what

    @property
    def is_elsewhere(self) -> bool:
        return self.machine not in ("", machine_id())


def machine_id() -> str:
    """What tells this machine, since it was started, from all others: two may have one name."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()


_UNKNOWN = Holder(pid=0, run="(unknown)", started="(unknown)")
_held: set[int] = set()
"""file descriptors of the locks that this process holds; a forked child closes them, or it would hold them too"""


def _drop_in_child() -> None:
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_drop_in_child)


@contextmanager
def workspace_lock(root: Path, run_name: str, *, command: str = "run") -> Iterator[Callable[[str], None]]:
    """Hold the workspace for the run `run_name` until the block, or the process, ends.

    The block gets a function that names another run, where it is found out under the lock which one is worked on.
    `command` is what works on it. It is an operating-system lock, so a killed process does not leave it behind. Not every file
    system keeps such a lock among several machines; against those the holder also counts in a file, and what another machine
    left there is taken over once it has been silent for LOST_AFTER_S.

    Raises:
        WorkspaceBusy: another process holds it; the message names process, run, start time, and the machine if it is another.
    """
    path = _lock_path(root)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if not _try_lock_for(descriptor, LOCK_PATIENCE_S):
            raise _busy(root, _read_holder(path))
        _held.add(descriptor)
        holder = Holder(
            pid=os.getpid(),
            run=run_name,
            started=time.strftime("%Y-%m-%d %H:%M:%S"),
            command=command,
            host=socket.gethostname(),
            machine=machine_id(),
        )
        _write_holder(descriptor, holder)
        with _heart_of(root, holder) as heart:

            def name_another(name: str) -> None:
                renamed = holder.model_copy(update={"run": name})
                _write_holder(descriptor, renamed)
                heart.rename(renamed.model_dump_json())

            yield name_another
    finally:
        if descriptor in _held:
            os.ftruncate(descriptor, 0)
            _held.remove(descriptor)
        os.close(descriptor)


def lock_holder(root: Path) -> Holder | None:
    """The process that holds the workspace now, or None."""
    path = _lock_path(root)
    if not path.exists():
        return None
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # a folder that is only read has holders too
    try:
        free = _try_lock(descriptor, fcntl.LOCK_SH)
        return _holder_elsewhere(root) if free else _read_holder(path)
    finally:
        os.close(descriptor)


@contextmanager
def _heart_of(root: Path, holder: Holder) -> Iterator[Heart]:
    """The heart by which other machines see the holder, who has the lock of this machine.

    Raises:
        WorkspaceBusy: one of another machine beats.
    """
    path = _heart_path(root)
    if (other := _holder_in(path)) is not None and other.is_elsewhere:
        pulse = Pulse(path)
        while not pulse.is_lost:
            if pulse.has_beaten:
                raise _busy(root, other)
            time.sleep(BEAT_S / 4)
    path.unlink(missing_ok=True)
    try:
        with Heart(path, holder.model_dump_json(), taken=lambda: _stop_here(root)) as heart:
            yield heart
    except FileExistsError as error:
        if error.filename != str(path):
            raise
        raise _busy(root, _holder_in(path) or _UNKNOWN) from error


def _holder_elsewhere(root: Path) -> Holder | None:
    """The process of another machine that holds the workspace, if its heart is seen to beat."""
    path = _heart_path(root)
    holder = _holder_in(path)
    if holder is None or not holder.is_elsewhere:
        return None
    pulse = Pulse(path)
    while pulse.silent_s() < LOOK_S and not pulse.has_beaten:
        time.sleep(BEAT_S / 4)
    return holder if pulse.has_beaten else None


def _stop_here(root: Path) -> None:
    """Another machine found this one silent and took the workspace over: two must not write."""
    other = _holder_in(_heart_path(root)) or _UNKNOWN
    print(f"regroup: {root} was taken over by {other}; this process stops", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)


def _holder_in(path: Path) -> Holder | None:
    with suppress(ValueError):
        return Holder.model_validate_json(header_of(path) or "")
    return None


def _heart_path(root: Path) -> Path:
    return runs_folder(root) / ".heart"


def _lock_path(root: Path) -> Path:
    return runs_folder(root) / ".lock"


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _try_lock_for(descriptor: int, seconds: float) -> bool:
    """Try to take the lock for `seconds`: another process may hold it for a moment in `lock_holder`."""
    end = time.monotonic() + seconds
    while not (locked := _try_lock(descriptor, fcntl.LOCK_EX)) and time.monotonic() < end:
        time.sleep(0.05)
    return locked


def _write_holder(descriptor: int, holder: Holder) -> None:
    text = holder.model_dump_json().encode()
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, text, 0)


def _read_holder(path: Path) -> Holder:
    """What the holder wrote about itself. It may not have written yet, so this tries for a second."""
    for _ in range(20):
        text = path.read_text(encoding="utf-8")
        with suppress(ValueError):
            return Holder.model_validate_json(text)
        time.sleep(0.05)
    return _UNKNOWN


def refuse_when_held(root: Path) -> None:
    """Check that no other process holds the workspace, before a command starts anything.

    Raises:
        WorkspaceBusy: another process holds the workspace.
    """
    if (holder := lock_holder(root)) is not None:
        raise _busy(root, holder)


def _busy(root: Path, holder: Holder) -> WorkspaceBusy:
    return WorkspaceBusy(
        f"{root} is held by {holder} (process {holder.pid}, started {holder.started}); "
        f"wait for it, stop it with `kill {holder.pid}`{' there' if holder.is_elsewhere else ''}, or work in another folder"
    )


# ---- the champion ---------------------------------------------------------------------------------------------------


class Champion(Record):
    """The policy that the workspace's next run starts from."""

    run: str
    round: int
    policy_id: str
    path: StoredPath


def read_champion(root: Path) -> Champion | None:
    """The champion in `runs/champion.json`, or None before the first run.

    Raises:
        ConfigError: the file does not hold a champion.
    """
    path = _champion_path(root)
    refuse_wedged(root)
    try:
        content = json.loads(path.read_bytes())
        return Champion.model_validate(content, context=_place_of_champion(root, content).context)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ConfigError(
            f"{path} names no champion: {error}; remove it to start from the configured policy"
        ) from error


def _place_of_champion(root: Path, content: Any) -> Place:
    run = content.get("run") if isinstance(content, dict) else None
    return Place(root, run_folder(root, run) if isinstance(run, str) else None)


def refuse_wedged(root: Path) -> None:
    """Check that no run's folder lies where the champion's file has to be, as earlier versions allowed.

    Raises:
        ConfigError: one does.
    """
    path = _champion_path(root)
    if path.is_dir():
        raise ConfigError(
            f"{path} is a folder, of a run with this name, where the champion's file has to be; "
            f"move it away: mv {path} {root / 'champion-run'}"
        )


def write_champion(root: Path, champion: Champion) -> None:
    """Write `runs/champion.json` atomically, unless it says the same already."""
    if not _champion_path(root).exists() or read_champion(root) != champion:
        write_json(_champion_path(root), champion.model_dump(context=Place(root).context))


def _champion_path(root: Path) -> Path:
    return runs_folder(root) / "champion.json"
