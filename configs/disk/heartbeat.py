"""Tells across machines whether a process is alive: it counts in a file, and others see the file change.

Neither the clocks of two machines are compared nor process ids of one looked up on another. A beat overwrites the file in
place: what was replaced by renaming, a network file system may show in its old state for a minute, but what is opened after
it was written and closed, in its new one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

BEAT_S = 1.0
LOST_AFTER_S = 30.0
"""a process whose file has not changed for so long is taken to be dead"""


def _nothing() -> None:
    return None


class Heart:
    """Counts in `file`, whose first line is `header`, for as long as the block is open; then the file is removed.

    Entering raises FileExistsError if the file is there. `taken` is called, once and in a thread, when another's file is found in
    the place of this one. A disk that is full or away costs beats and nothing else.
    """

    def __init__(self, file: Path, header: str, *, taken: Callable[[], None] = _nothing) -> None:
        assert "\n" not in header
        self._file = file
        self._header = f"{header}\n".encode()
        self._taken = taken
        self._count = 0
        self._ended, self._writing = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._beat, name=f"heartbeat {file.name}", daemon=True)

    def __enter__(self) -> Self:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("xb") as file:
            file.write(self._header + self._line())
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        with suppress(OSError):
            if header_of(self._file) == self._header.decode().rstrip("\n"):
                self._file.unlink()

    def rename(self, header: str) -> None:
        """Change the first line."""
        with self._writing:
            old, self._header = self._header, f"{header}\n".encode()
            with suppress(OSError), self._file.open("r+b") as file:
                if file.readline() == old:
                    file.seek(0)
                    file.write(self._header + self._line())
                    file.truncate()

    def _line(self) -> bytes:
        return f"{self._count:012d}\n".encode()  # always as long, so that a write never leaves a longer one's rest

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S):
            self._count += 1
            with self._writing, suppress(OSError), self._file.open("r+b") as file:
                if file.readline() != self._header:
                    self._taken()
                    return
                file.seek(len(self._header))
                file.write(self._line())


class Pulse:
    """Watches another process's heart by what changes in its file."""

    def __init__(self, file: Path, now: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._now = now
        self._seen = content_of(file)
        self._changed_s = now()
        self.has_beaten = False
        """whether the file was seen to change since this began to watch"""

    def silent_s(self) -> float:
        """Seconds since the file was last seen to change, or since this began to watch it; a file that is gone is silent."""
        content = content_of(self._file)
        if content is not None and content != self._seen:
            self._seen, self._changed_s = content, self._now()
            self.has_beaten = True
        return self._now() - self._changed_s

    @property
    def is_lost(self) -> bool:
        return self.silent_s() > LOST_AFTER_S


def content_of(file: Path) -> bytes | None:
    """The content of a heart's file; None if it is not there, not readable or not written yet."""
    try:
        return file.read_bytes() or None
    except OSError:
        return None


def header_of(file: Path) -> str | None:
    """The first line of a heart's file, or None."""
    content = content_of(file)
    return None if content is None or b"\n" not in content else content.split(b"\n", 1)[0].decode()
