"""Runs checkers that are not our code in worker processes with a time limit.

These are reasoning-gym and the user's patterns. Such a checker may hang or crash on some text. The pool then kills or
replaces its worker and leaves that one check unscored; whose fault that is, the caller finds out. The workers run
`checker_worker`; a job and its result are one line of JSON each.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from types import TracebackType
from typing import Any, Literal, Self

from reward_training.reward import Unscored, Value

START_LIMIT_S = 180.0
"""A worker imports the checkers' libraries when it starts, which takes long on a busy machine."""
DIED = "checker died"
"""the reason of a check whose worker process ended"""
JOBS_PER_WORKER = 16
"""A call uses one worker per this many checks, up to the number of workers that the pool may have."""

SAME_IN_EACH = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""environment of a worker: with a fixed hash seed a checker that depends on the order of a set says the same in each"""


@dataclass(frozen=True)
class Check:
    """A call of a function of `reward_training.answers.checkers`, with arguments that JSON can hold."""

    checker: Literal["reasoning_gym", "regex"]
    arguments: tuple[Any, ...]
    timeout_s: float


class _Worker:
    """A worker process, with the one job it is busy with or None. A job is the index of a check in the call's list."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "reward_training.rewards.checker_worker", *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **SAME_IN_EACH},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self.output = self._process.stdin, self._process.stdout
        os.set_blocking(self.output.fileno(), False)
        self._buffer = b""
        self.ready = False
        self.job: int | None = None
        self.limit_s = START_LIMIT_S
        self.deadline = time.monotonic() + START_LIMIT_S

    def send(self, job: int, check: Check) -> None:
        message = {"checker": check.checker, "arguments": check.arguments, "timeout_s": check.timeout_s}
        self.job, self.limit_s = job, check.timeout_s
        self.deadline = time.monotonic() + check.timeout_s
        self._input.write(json.dumps(message).encode() + b"\n")
        self._input.flush()

    def receive(self) -> dict[str, Any] | None:
        """Return the next message, or None while it is incomplete. Raises EOFError when the worker has died."""
        chunk = os.read(self.output.fileno(), 65536)
        if not chunk:
            raise EOFError
        line, newline, rest = (self._buffer + chunk).partition(b"\n")
        self._buffer = rest if newline else line
        message: dict[str, Any] | None = json.loads(line) if newline else None
        return message

    def stop(self) -> int:
        """Kill the process and return its exit code."""
        self._process.kill()
        code = self._process.wait()
        with suppress(BrokenPipeError):  # a worker that died between two calls has left a job unread
            self._input.close()
        self.output.close()
        return code


class CheckerPool:
    """Runs checks in parallel. A worker that hangs or dies costs one check and is replaced.

    Threads may share a pool; their calls are served one after the other. Close the pool when you are done, or
    use `with`.
    """

    def __init__(self, modules: Sequence[str] = ("reasoning_gym",), num_workers: int | None = None) -> None:
        self._modules = list(modules)
        self._num_workers = num_workers or max(1, min(8, len(os.sched_getaffinity(0))))
        self._workers: list[_Worker] = []
        self._lock = Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill every worker."""
        while self._workers:
            self._workers.pop().stop()

    def run(self, checks: Sequence[Check]) -> list[Value]:
        """Return a value for each check, in order; Unscored where it took too long, raised, or ended its worker.

        Raises:
            RuntimeError: a worker cannot start.
        """
        with self._lock:
            return self._run(checks)

    def _run(self, checks: Sequence[Check]) -> list[Value]:
        results: list[Value | None] = [None] * len(checks)
        waiting = deque(range(len(checks)))
        wanted = min(self._num_workers, -(-len(checks) // JOBS_PER_WORKER))
        try:
            while waiting or any(worker.job is not None for worker in self._workers):
                self._replace_missing(min(wanted, len(waiting) + sum(w.job is not None for w in self._workers)))
                self._hand_out(waiting, checks)
                self._collect(results)
        except BaseException:
            self.close()  # otherwise a worker that still has a job would send its result to the next call
            raise
        assert all(result is not None for result in results)
        return [result for result in results if result is not None]

    def _replace_missing(self, wanted: int) -> None:
        while len(self._workers) < wanted:
            self._workers.append(_Worker(self._modules))

    def _hand_out(self, waiting: deque[int], checks: Sequence[Check]) -> None:
        for worker in self._workers:
            if waiting and worker.ready and worker.job is None:
                job = waiting.popleft()
                try:
                    worker.send(job, checks[job])
                except BrokenPipeError:
                    continue  # the worker has died: _collect sees that and leaves its job unscored

    def _collect(self, results: list[Value | None]) -> None:
        """Wait for the next message or deadline, then take arrived results and end workers that are too late."""
        busy = [worker for worker in self._workers if not worker.ready or worker.job is not None]
        with selectors.DefaultSelector() as selector:
            for worker in busy:
                selector.register(worker.output, selectors.EVENT_READ, worker)
            patience = min(worker.deadline for worker in busy) - time.monotonic()
            heard = [key.data for key, _ in selector.select(max(0.0, patience))]
        for worker in heard:
            self._take(worker, results)
        for worker in busy:
            if worker in self._workers and worker not in heard and time.monotonic() >= worker.deadline:
                self._end(worker, results, f"timeout after {worker.limit_s:g} s")

    def _take(self, worker: _Worker, results: list[Value | None]) -> None:
        try:
            message = worker.receive()
        except EOFError:
            self._end(worker, results, DIED)
            return
        if message is None:
            return
        if not worker.ready:
            worker.ready, worker.deadline = True, float("inf")
            return
        assert worker.job is not None
        value = message.get("value")
        results[worker.job] = float(value) if value is not None else Unscored(f"checker raised {message['error']}")
        worker.job, worker.deadline = None, float("inf")

    def _end(self, worker: _Worker, results: list[Value | None], reason: str) -> None:
        self._workers.remove(worker)
        code = worker.stop()
        if not worker.ready:
            raise RuntimeError(
                f"a checker process did not start ({reason}, exit code {code}); "
                f"try `python -m reward_training.rewards.checker_worker {' '.join(self._modules)}`"
            )
        if worker.job is not None:
            results[worker.job] = Unscored(reason)
