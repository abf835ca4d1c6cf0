"""Makes folders whole or not at all, one process at a time."""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from configs.errors import ConfigError


def make_atomically(folder: Path, write: Callable[[Path], None], *, what: str, is_made: Callable[[Path], bool]) -> None:
    """Let `write` fill a temporary folder, which is then renamed to `folder`, so that a kill leaves nothing half-written.
    Where another process is making one beside it this waits, and nothing is written if the folder `is_made` by then.

    Raises:
        ConfigError: the folder above it is read-only, or something else has the folder's name.
    """
    with _refusing_read_only(folder.parent, what):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with making_alone(folder.parent):
        if is_made(folder):
            return
        for leftover in folder.parent.glob(
            f".{glob.escape(folder.name)}.*.tmp"
        ):  # of killed processes: this one is alone
            shutil.rmtree(leftover, ignore_errors=True)
        with _refusing_read_only(folder.parent, what):
            temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
        try:
            write(temporary)
            temporary.chmod(0o755)
            _rename(temporary, folder, what, is_made)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def making_alone(folder: Path) -> Iterator[None]:
    """Hold the right to make something in that folder; a killed process does not leave it behind."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _refusing_read_only(folder: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES):
            raise
        raise ConfigError(
            f"{what} cannot be put into {folder}, which is read-only; fetch it in another folder, by `regroup fetch`, and name it "
            "by its path"
        ) from error


def _rename(temporary: Path, folder: Path, what: str, is_made: Callable[[Path], bool]) -> None:
    """Give the folder its name, unless a machine whose locks are not seen here made one."""
    try:
        temporary.replace(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        if not is_made(folder):
            raise ConfigError(f"{what} cannot be put into {folder}, where something else is; move that away") from error
