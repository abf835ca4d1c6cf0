"""Keeps on disk what happened in a workspace's runs and who was told: `runs/alerts.jsonl`, which only grows.

A happening is written down before anybody is told, and that a receiver was told once it has answered. So a kill loses
nothing: whoever works in the workspace next tells what is missing. A kill between a receiver's answer and our note makes
it be told twice, with the same `id`.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from configs.disk.files import json_line, whole_lines
from configs.records import Record
from tasks.runs.workspace import runs_folder

FILE = "alerts.jsonl"
LOCK = ".alerts.lock"
TRIED_FOR_DAYS = 7
"""after which a receiver that never answered is not told any more"""


class Alert(Record):
    """One thing that happened, and the receivers that are to be told."""

    id: str
    """the same for the same happening, whoever writes it down"""
    happening: str
    """one of those that configurations name, or `test`"""
    at_ms: int
    run: str
    round: int | None
    text: str
    details: dict[str, Any]
    flow_run: str | None
    """id of Prefect's flow run"""
    to: list[str]


def alert_id(*parts: object) -> str:
    """A UUID that is the same for equal parts."""
    return str(uuid5(NAMESPACE_URL, "regroup:" + json.dumps([str(part) for part in parts])))


class Outbox:
    """The alerts of a workspace."""

    def __init__(self, root: Path) -> None:
        self.path = runs_folder(root) / FILE
        self._lock = runs_folder(root) / LOCK
        self._unwritten: list[dict[str, Any]] = []
        """rows for which the disk had no room: they hold for this process, and are written with the next one"""

    def add(self, alert: Alert) -> bool:
        """Write an alert down unless it is there already; returns whether it is new.

        Raises:
            OSError: it cannot be written; this process tells of it all the same.
        """
        if any(alert.id == known.id for known in self.alerts()):
            return False
        self._append({"alert": alert.model_dump(mode="json")})
        return True

    def note_told(self, alert: Alert, receiver: str) -> None:
        self._append({"told": alert.id, "receiver": receiver, "at_ms": int(time.time() * 1000)})

    def alerts(self) -> list[Alert]:
        """All alerts, oldest first."""
        return _alerts(self._rows())

    def missing(self) -> dict[str, list[Alert]]:
        """{receiver: alerts that it was not told yet}, oldest first; what is older than a week is given up."""
        rows = list(self._rows())
        told = {(row["told"], row["receiver"]) for row in rows if "told" in row}
        since_ms = (time.time() - TRIED_FOR_DAYS * 24 * 3600) * 1000
        missing: dict[str, list[Alert]] = {}
        for alert in _alerts(rows):
            for receiver in alert.to:
                if alert.at_ms >= since_ms and (alert.id, receiver) not in told:
                    missing.setdefault(receiver, []).append(alert)
        return missing

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether this thread alone tells receivers until the block, or the process, ends.

        A record lock, unlike the workspace's, is not inherited by the processes that checkers are forked into.
        """
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        if not _one_thread.acquire(blocking=False):
            yield False
            return
        try:
            with self._lock.open("w") as file:
                try:
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    free = True
                except OSError:
                    free = False
                yield free
        finally:
            _one_thread.release()

    def _append(self, row: dict[str, Any]) -> None:
        """Append a line, after those that could not be written before, and flush it to disk. A line that a kill tore is ended first, and
        never read."""
        self._unwritten.append(row)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - 1))
            torn = file.read(1) not in (b"", b"\n")
            lines = b"\n" * torn + b"".join(json_line(row).encode(errors="replace") for row in self._unwritten)
            if file.write(lines) < len(lines):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            os.fsync(file.fileno())
        self._unwritten.clear()

    def _rows(self) -> Iterator[dict[str, Any]]:
        for line in whole_lines(self.path) if self.path.exists() else []:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            yield row
        yield from list(self._unwritten)


def _alerts(rows: Iterable[dict[str, Any]]) -> list[Alert]:
    """The alerts among the rows, each once: one that met a full disk may be written a second time."""
    alerts = {row["alert"]["id"]: Alert.model_validate(row["alert"]) for row in rows if "alert" in row}
    return list(alerts.values())


_one_thread = threading.Lock()
"""record locks do not keep the threads of one process apart"""
