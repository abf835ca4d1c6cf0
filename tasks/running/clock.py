"""Measures how much of a process's time goes into the work of stages, and how much into bookkeeping."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ParamSpec

import psutil

from tasks.runs.times import CallTime

GivenT = ParamSpec("GivenT")


def _process_start() -> float:
    return float(psutil.Process().create_time())


@dataclass
class Clock:
    """`work` is the time of the stages' bodies in seconds, with checkpoints, without sending to MLflow and pauses."""

    started: float = field(default_factory=_process_start)
    """seconds since the epoch"""
    work: float = 0.0
    pauses: float = 0.0
    """time in which the process waited for people, which is part of neither work nor bookkeeping"""

    @contextmanager
    def working(self) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.work += time.monotonic() - began

    def aside(self, call: Callable[GivenT, None]) -> Callable[GivenT, None]:
        """`call`, wrapped so that its time inside a `working` block does not count as work."""

        def timed(*args: GivenT.args, **kwargs: GivenT.kwargs) -> None:
            began = time.monotonic()
            try:
                call(*args, **kwargs)
            finally:
                self.work -= time.monotonic() - began

        return timed

    def pausing(self, call: Callable[GivenT, None]) -> Callable[GivenT, None]:
        """`call`, wrapped so that its time inside a `working` block counts as a pause."""
        aside = self.aside(call)

        def timed(*args: GivenT.args, **kwargs: GivenT.kwargs) -> None:
            began = time.monotonic()
            try:
                aside(*args, **kwargs)
            finally:
                self.pauses += time.monotonic() - began

        return timed

    def now(self) -> CallTime:
        """The time since the process started without pauses, and how much of it was work."""
        whole = time.time() - self.started - self.pauses
        return CallTime(call=f"{self.started:.2f}-{os.getpid()}", whole=max(whole, self.work), work=self.work)
