"""SIGKILL at a named point, or after some time, in a child of a process that has imported everything, so that a kill costs little.

That process does nothing else: a fork of the tests' own would inherit the locks of threads that it has not, and libraries'
pools of threads without the threads.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from itertools import count
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

import cloudpickle

CHILDREN = multiprocessing.get_context("forkserver")
CHILDREN.set_forkserver_preload(
    ["flows.align", "mlflow", "tasks.stages.offline_policy", "tasks.stages.policy", "tasks.stages.reward_model"]
)
TIMEOUT_S = 300
KILLED = -signal.SIGKILL


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def child_that_does(work: Callable[[], object]) -> BaseProcess:
    """A child that was just begun, in this process' folder and environment. What the tests patched in this process, it does not see."""
    child = CHILDREN.Process(target=_do, args=(cloudpickle.dumps(work), os.getcwd(), dict(os.environ)))
    child.start()
    return child


def _do(work: bytes, folder: str, environment: dict[str, str]) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    cloudpickle.loads(work)()


def in_child(work: Callable[[], object], *, kill_after_s: float | None = None) -> int | None:
    """The exit code of a child that does `work`: -9 where it was killed."""
    child = child_that_does(work)
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        child.kill()
    child.join(TIMEOUT_S)
    if child.is_alive():
        child.kill()
        child.join()
        raise TimeoutError(f"the child had not ended after {TIMEOUT_S} s")
    return child.exitcode


def arm(owner: Any, name: str, number: int = 1, when: Literal["before", "after"] = "before") -> None:
    """Die before or after the `number`-th call of `owner.name`. For the child: nothing is put back."""
    real, calls = getattr(owner, name), count(1)

    def armed(*args: Any, **kwargs: Any) -> Any:
        is_it = next(calls) == number
        if is_it and when == "before":
            die()
        result = real(*args, **kwargs)
        if is_it:
            die()
        return result

    setattr(owner, name, armed)


def tear(owner: Any, name: str, path_of: Callable[..., Path], number: int = 1) -> None:
    """Die when half of what the `number`-th call of `owner.name` writes to a file is there."""
    real, calls = getattr(owner, name), count(1)

    def torn(*args: Any, **kwargs: Any) -> Any:
        path = path_of(*args, **kwargs)
        before = path.stat().st_size if path.exists() else 0
        result = real(*args, **kwargs)
        if next(calls) == number:
            os.truncate(path, (before + path.stat().st_size) // 2)
            die()
        return result

    setattr(owner, name, torn)


def remove_half(owner: Any, name: str) -> None:
    """Die when a folder that `owner.name` is to remove has lost its first file; temporary folders go as always."""
    real = getattr(owner, name)

    def removed(folder: str | Path, **kwargs: Any) -> None:
        if Path(folder).name.startswith("."):
            real(folder, **kwargs)
            return
        sorted(path for path in Path(folder).rglob("*") if path.is_file())[0].unlink()
        die()

    setattr(owner, name, removed)
