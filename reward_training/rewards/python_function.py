"""Reward from a user's Python function, `module:function`, called with all problems and completions of a batch.

    def reward(problems, completions):
        return [1.0 if problem.answer in completion.text else 0.0 for problem, completion in zip(problems, completions)]

It returns a number for each completion, or `reward_training.reward.Unscored("why")` for one that it cannot score.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence

from configs.errors import ConfigError
from configs.records import Completion, Problem
from configs.schema.rewards import PythonRewardConfig
from reward_training.reward import Value

Function = Callable[[list[Problem], list[Completion]], Sequence[Value]]


class PythonReward:
    def __init__(self, config: PythonRewardConfig) -> None:
        self.name = config.name
        self.weight = config.weight
        self._function = load_function(config.function)

    def __call__(self, problems: Sequence[Problem], completions: Sequence[Completion]) -> Sequence[Value]:
        return self._function(list(problems), list(completions))


def load_function(path: str) -> Function:
    """The function at `module:function`; the current folder is searched first.

    Raises:
        ConfigError: there is no such module or function.
    """
    module_name, _, function_name = path.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a user's module may raise anything on import
        raise ConfigError(
            f"function={path!r}: cannot import {module_name!r} from {os.getcwd()}: {type(error).__name__}: {error}"
        ) from error
    function: Function | None = getattr(module, function_name, None)
    if not callable(function):
        names = sorted(name for name, value in vars(module).items() if callable(value) and not name.startswith("_"))
        raise ConfigError(f"function={path!r}: {module_name} has no function {function_name!r}; it has {names}")
    return function
