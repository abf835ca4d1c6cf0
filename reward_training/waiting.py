"""Waiting for servers, in a stage that may be asked to stop meanwhile."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any, TypeVar

from configs.errors import StageStopped

T = TypeVar("T")
QUIET_S = 5.0
"""a stage that was asked to stop goes on to its next step boundary, unless servers give nothing for so long"""
LOOK_EVERY_S = 0.2


def _log_warning(text: str) -> None:
    logging.getLogger("regroup").warning(text)


@dataclass(frozen=True)
class Waiting:
    """What a stage lends to what waits for servers in it."""

    warn: Callable[[str], None] = _log_warning
    """tells the user"""
    should_stop: Callable[[], bool] = lambda: False


class Quiet:
    """How long servers have given nothing since the stage was asked to stop. Threads may share it."""

    def __init__(self, should_stop: Callable[[], bool]) -> None:
        self._should_stop = should_stop
        self._since: float | None = None

    def broken(self) -> None:
        """A server has given something."""
        self._since = None

    def refuse_long(self, what: str) -> None:
        """Raise StageStopped, which says `what`, if it has been for QUIET_S."""
        if not self._should_stop():
            return
        now = time.monotonic()
        since = self._since = now if self._since is None else self._since
        if now - since > QUIET_S:
            raise StageStopped(what)

    def wait_for(self, futures: Sequence[Future[T]], what: str) -> None:
        """Wait until all are done; raises StageStopped as `refuse_long`."""
        while wait(futures, LOOK_EVERY_S).not_done:
            self.refuse_long(what)


class Daemons:
    """Threads that work through what is submitted. Unlike those of `ThreadPoolExecutor`, an ending process does not wait for
    them: they may hang in a request to a server that does not answer."""

    def __init__(self, number: int) -> None:
        self._number, self._has_ended = number, False
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """The future result of the call; cancelled after `end`."""
        future: Future[T] = Future()
        with self._lock:
            if self._has_ended:
                _cancel(future)
                return future
            self._calls.put((future, call))
            if len(self._threads) < self._number:
                self._threads.append(threading.Thread(target=self._work, daemon=True))
                self._threads[-1].start()
        return future

    def end(self) -> None:
        """Let the threads end after what was submitted; returns at once."""
        with self._lock:
            self._has_ended = True
            for _ in self._threads:
                self._calls.put(None)

    def close(self) -> None:
        """The same, without what has not begun."""
        while not self._calls.empty():
            try:
                waiting = self._calls.get_nowait()
            except queue.Empty:
                break
            if waiting is not None:
                _cancel(waiting[0])
        self.end()

    def _work(self) -> None:
        while (given := self._calls.get()) is not None:
            future, call = given
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001 - whoever asks for the result gets it
                future.set_exception(error)


def _cancel(future: Future[Any]) -> None:
    future.cancel()
    future.set_running_or_notify_cancel()  # tells who waits for it
