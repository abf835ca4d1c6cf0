"""Measures how much of a process's time went into the work of stages, and how much into bookkeeping."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil


def _process_start() -> float:
    return float(psutil.Process().create_time())


@dataclass
class Clock:
    """`work` is the time of the stages' bodies in seconds, with checkpoints and without sending to MLflow."""

    started: float = field(default_factory=_process_start)
    """seconds since the epoch"""
    work: float = 0.0

    @contextmanager
    def working(self) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.work += time.monotonic() - began

    def aside(self, call: Callable[[], None]) -> Callable[[], None]:
        """`call`, wrapped so that its time inside a `working` block does not count as work."""

        def timed() -> None:
            began = time.monotonic()
            call()
            self.work -= time.monotonic() - began

        return timed

    def facts(self) -> dict[str, float]:
        """Seconds since the process started, and those without work: Prefect, MLflow, manifests, start and end."""
        whole = time.time() - self.started
        return {"whole": whole, "bookkeeping": whole - self.work}
