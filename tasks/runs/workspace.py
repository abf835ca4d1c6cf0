"""The workspace, which is the current folder: its paths, the lock that a run holds, and the champion."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from configs.disk.files import write_json
from configs.errors import ConfigError, WorkspaceBusy
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


def reward_model_folder(run_dir: Path, round_index: int, name: str) -> Path:
    return round_folder(run_dir, round_index) / "reward_model" / name


def by_hand_folder(run_dir: Path, round_index: int, name: str) -> Path:
    """Folder of a reward model that was retrained by hand on the pairs up to that round."""
    return round_folder(run_dir, round_index) / BY_HAND / name


def problems_of_round(run_dir: Path, round_index: int, rounds_asked: list[int]) -> Path:
    """Folder of a round's problems.

    Each time that `rounds` is raised, the added rounds get their own folder: their shards are cut anew from the
    training problems, and the files of earlier rounds stay unchanged.
    """
    covering = next(num_rounds for num_rounds in rounds_asked if num_rounds >= round_index)
    return run_dir / "problems" if covering == rounds_asked[0] else run_dir / f"problems_{covering:03d}"


# ---- the lock -------------------------------------------------------------------------------------------------------


LOCK_PATIENCE_S = 0.5


class Holder(Record):
    """The process that holds a workspace, and its run."""

    pid: int
    run: str
    started: str
    """local time, for people"""


_held: set[int] = set()
"""file descriptors of the locks that this process holds; a forked child closes them, or it would hold them too"""


def _drop_in_child() -> None:
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_drop_in_child)


@contextmanager
def workspace_lock(root: Path, run_name: str) -> Iterator[None]:
    """Hold the workspace for the run `run_name` until the block, or the process, ends.

    It is an operating-system lock, so a killed process does not leave it behind.

    Raises:
        WorkspaceBusy: another process holds it; the message names process, run and start time.
    """
    path = _lock_path(root)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if not _try_lock_for(descriptor, LOCK_PATIENCE_S):
            raise _busy(root, _read_holder(path))
        _held.add(descriptor)
        _write_holder(descriptor, Holder(pid=os.getpid(), run=run_name, started=time.strftime("%Y-%m-%d %H:%M:%S")))
        yield
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
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        free = _try_lock(descriptor, fcntl.LOCK_SH)
        return None if free else _read_holder(path)
    finally:
        os.close(descriptor)


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
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, holder.model_dump_json().encode(), 0)


def _read_holder(path: Path) -> Holder:
    """What the holder wrote about itself. It may not have written yet, so this tries for a second."""
    for _ in range(20):
        text = path.read_text(encoding="utf-8")
        with suppress(ValueError):
            return Holder.model_validate_json(text)
        time.sleep(0.05)
    return Holder(pid=0, run="(unknown)", started="(unknown)")


def refuse_when_held(root: Path) -> None:
    """Check that no other process holds the workspace, before a command starts anything.

    Raises:
        WorkspaceBusy: another process holds the workspace.
    """
    if (holder := lock_holder(root)) is not None:
        raise _busy(root, holder)


def _busy(root: Path, holder: Holder) -> WorkspaceBusy:
    return WorkspaceBusy(
        f"{root} is held by run {holder.run!r} (process {holder.pid}, started {holder.started}); "
        f"wait for it, stop it with `kill {holder.pid}`, or work in another folder"
    )


# ---- the champion ---------------------------------------------------------------------------------------------------


class Champion(Record):
    """The policy that the workspace's next run starts from."""

    run: str
    round: int
    policy_id: str
    path: str
    """absolute after reading; on disk relative to the workspace if it is inside"""


def read_champion(root: Path) -> Champion | None:
    """The champion in `runs/champion.json`, or None before the first run.

    Raises:
        ConfigError: the file does not hold a champion.
    """
    path = _champion_path(root)
    try:
        champion = Champion.model_validate(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ConfigError(
            f"{path} names no champion: {error}; remove it to start from the configured policy"
        ) from error
    return champion.model_copy(update={"path": str(root / champion.path)})


def write_champion(root: Path, champion: Champion) -> None:
    """Write `runs/champion.json` atomically, unless it says the same already."""
    path = Path(champion.path)
    inside = path.is_absolute() and path.is_relative_to(root.absolute())
    stored = str(path.relative_to(root.absolute())) if inside else champion.path
    value: dict[str, Any] = champion.model_copy(update={"path": stored}).model_dump()
    if not _champion_path(root).exists() or read_champion(root) != champion:
        write_json(_champion_path(root), value)


def _champion_path(root: Path) -> Path:
    return runs_folder(root) / "champion.json"
