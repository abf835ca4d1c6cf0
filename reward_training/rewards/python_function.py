"""Reward from a user's Python function, `module:function`, called with all problems and completions of a batch.

    def reward(problems, completions):
        return [1.0 if problem.answer in completion.text else 0.0 for problem, completion in zip(problems, completions)]

It returns a number for each completion, or `reward_training.reward.Unscored("why")` (or None) for one that it cannot
score. Functions in the forms of TRL and verl are called as those libraries call them (`python_forms`), and async
functions are awaited.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from configs.errors import ConfigError
from configs.records import Completion, Problem
from configs.schema.rewards import PythonRewardConfig
from reward_training.reward import Value
from reward_training.rewards.python_forms import Caller, Function
from reward_training.rewards.source_code import forget_changed
from reward_training.rewards.user_modules import hidden_file, import_user_module


class PythonReward:
    """Close it when you are done."""

    def __init__(self, config: PythonRewardConfig) -> None:
        self.name = config.name
        self.weight = config.weight
        self.sources = config.sources
        self._loop = _EventLoop()
        self._call = Caller(load_function(config.function), config.function, self._loop.wait_for)

    def __call__(self, problems: Sequence[Problem], completions: Sequence[Completion]) -> list[Value]:
        return self._call(problems, completions)

    def close(self) -> None:
        self._loop.close()


class _EventLoop:
    """One event loop for all calls, since what an async function keeps (a client's connections) belongs to its loop.

    It runs in a thread of its own: the caller's thread may have a loop already.
    """

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._thread: ThreadPoolExecutor | None = None

    def wait_for(self, awaitable: Awaitable[Any]) -> Any:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1)
        return self._thread.submit(lambda: self._runner.run(_awaited(awaitable))).result()

    def close(self) -> None:
        if self._thread is not None:
            self._thread.submit(self._runner.close).result()
            self._thread.shutdown()
            self._thread = None


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def load_function(path: str) -> Function:
    """The function at `module:function`; the current folder is searched first, and code that changed is imported anew.

    Raises:
        ConfigError: there is no such module or function.
    """
    module_name, _, function_name = path.partition(":")
    try:
        forget_changed(path)
        module = import_user_module(module_name)
    except (Exception, SystemExit) as error:  # a user's module may raise anything on import, and a script may end
        hidden = hidden_file(error) if isinstance(error, ImportError) else None
        remedy = f"; {hidden} has the name of another module, which was found first: rename it" if hidden else ""
        raise ConfigError(
            f"function={path!r}: cannot import {module_name!r} from {os.getcwd()}: {type(error).__name__}: {error}{remedy}"
        ) from error
    function: Function | None = getattr(module, function_name, None)
    if not callable(function):
        names = sorted(name for name, value in vars(module).items() if callable(value) and not name.startswith("_"))
        raise ConfigError(f"function={path!r}: {module_name} has no function {function_name!r}; it has {names}")
    return function
