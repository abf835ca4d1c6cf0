"""Caches a judge's replies on disk, so that no question is paid for twice, not even after a crash."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path
from threading import Lock


class ReplyCache:
    """One SQLite file, safe for several threads and several processes at once."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = Lock()
        self._database = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL)")

    def get(self, key: str) -> str | None:
        with self._lock:
            row = self._database.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def put(self, key: str, reply: str) -> None:
        """Store a reply, unless the question has one already."""
        with self._lock:
            self._database.execute("INSERT OR IGNORE INTO replies VALUES (?, ?)", (key, reply))

    def forget(self, key: str) -> None:
        """Remove the reply to a question."""
        with self._lock:
            self._database.execute("DELETE FROM replies WHERE key = ?", (key,))

    def close(self) -> None:
        self._database.close()


def reply_key(*parts: str) -> str:
    """sha256 of the model and the whole question. The lengths of the parts are hashed too, so that no two collide."""
    return hashlib.sha256("".join(f"{len(part)}:{part}" for part in parts).encode()).hexdigest()
