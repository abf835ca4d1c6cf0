"""The forms of reward functions that are called as they are: Regroup's own, TRL's and verl's.

The names of a function's parameters tell its form. The libraries' conventions are those of `_calculate_rewards` in TRL's
GRPOTrainer and of verl's NaiveRewardManager. Left out: what only their trainers have (TRL's `trainer_state`, `log_extra`,
`log_metric` and `environments`); a function that cannot do without is refused.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal

from configs.errors import ConfigError, RewardError
from configs.records import Completion, Message, Problem, Prompt
from reward_training.answers.entries import decoded
from reward_training.reward import Unscored, Value, one_each
from reward_training.rewards.outcome import asked

Form = Literal["regroup", "trl", "verl"]
SIGNATURES: dict[Form, str] = {
    "regroup": "(problems, completions)",
    "trl": "(prompts, completions, completion_ids, **columns)",
    "verl": "(data_source, solution_str, ground_truth, extra_info)",
}
TRL_ARGUMENTS = ("prompts", "completions", "completion_ids")
TRAINER_ARGUMENTS = ("trainer_state", "log_extra", "log_metric", "environments")
"""what TRL's trainer passes besides, and Regroup does not"""
NO_COLUMNS = {"prompt", "completion", *TRL_ARGUMENTS}
VERL_COLUMNS = ("data_source", "extra_info")
"""columns of verl's data that its reward manager passes as they are"""
VERL_ARGUMENTS = ("data_source", "solution_str", "ground_truth", "extra_info")

Function = Callable[..., Any]
Await = Callable[[Awaitable[Any]], Any]
"""waits for what an async function returned, and returns the result"""


def form_of(function: Function, path: str) -> Form:
    """The form that the names of the function's parameters tell.

    Raises:
        ConfigError: they tell none, or the function needs an argument that it would not get.
    """
    names = list(_parameters(function, path))
    if names[:2] == ["problems", "completions"]:
        return "regroup"
    if "solution_str" in names:
        _refuse(path, [name for name in _required(function, path) if name not in VERL_ARGUMENTS])
        return "verl"
    if set(TRL_ARGUMENTS).intersection(names):
        _refuse(path, [name for name in _required(function, path) if name in TRAINER_ARGUMENTS])
        return "trl"
    forms = "; ".join(f"{SIGNATURES[form]} of {form}" for form in SIGNATURES)
    raise ConfigError(
        f"function={path!r}: the parameters ({', '.join(names)}) are none of the known forms: {forms}; "
        "name the parameters as one of these"
    )


def missing_columns(function: Function, path: str, problems: Sequence[Problem]) -> dict[str, str]:
    """The columns that a function of TRL's form cannot do without and a problem lacks; each with the first such source."""
    if form_of(function, path) != "trl":
        return {}
    needed = [name for name in _required(function, path) if name not in TRL_ARGUMENTS]
    return {name: problem.source for problem in reversed(problems) for name in needed if name not in _columns(problem)}


def named_columns(function: Function, path: str) -> set[str]:
    """The names that may be columns: of the function's parameters, and of all texts in its module.

    A function that makes up names at run time needs `columns.keep`.
    """
    module = inspect.getmodule(function)
    try:
        tree = ast.parse("" if module is None else inspect.getsource(module))
    except (OSError, TypeError, SyntaxError):  # no source to be had
        tree = ast.parse("")
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    of_verl = set(VERL_COLUMNS) if form_of(function, path) == "verl" else set()
    return texts | set(_parameters(function, path)) | of_verl


def _parameters(function: Function, path: str) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(function).parameters)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"function={path!r} does not tell its parameters: {error}; wrap it in a def") from error


def _required(function: Function, path: str) -> list[str]:
    return [
        name
        for name, parameter in _parameters(function, path).items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]


def _refuse(path: str, names: list[str]) -> None:
    if names:
        raise ConfigError(
            f"function={path!r} needs {', '.join(names)}, which Regroup does not pass; give it a default, or wrap the function"
        )


class Caller:
    """Calls a function of one of the forms; returns a value for each completion."""

    def __init__(self, function: Function, path: str, wait_for: Await) -> None:
        self.form = form_of(function, path)
        self._function, self._path, self._wait_for = function, path, wait_for
        parameters = _parameters(function, path)
        self._required = _required(function, path)
        takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        self._accepted = None if takes_all else set(parameters)

    def __call__(self, problems: Sequence[Problem], completions: Sequence[Completion]) -> list[Value]:
        """A value for each completion; Unscored where the function returned None.

        Raises:
            RewardError: the problems lack a column that the function needs, or a result has no score.
        """
        match self.form:
            case "regroup":
                return self._values(self._waited(self._function(list(problems), list(completions))), len(completions))
            case "trl":
                arguments = self._taken(trl_arguments(problems, completions))
                return self._values(self._waited(self._function(**arguments)), len(completions))
            case "verl":
                rows = zip(problems, completions, strict=True)
                results = [self._function(**self._taken(verl_arguments(*row))) for row in rows]
                return self._values([self._score(result) for result in self._all_waited(results)], len(completions))

    def _taken(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments that the function takes."""
        if missing := [name for name in self._required if name not in arguments]:
            raise RewardError(
                f"function={self._path!r} needs {', '.join(missing)}; the problems have the columns "
                f"{', '.join(name for name in arguments if name not in TRL_ARGUMENTS)}; columns.keep of a source keeps more"
            )
        return {name: value for name, value in arguments.items() if self._accepted is None or name in self._accepted}

    def _waited(self, result: Any) -> Any:
        return self._wait_for(result) if inspect.isawaitable(result) else result

    def _all_waited(self, results: list[Any]) -> list[Any]:
        """The results, those of an async function once all calls have ended; the calls run at the same time."""
        if not any(inspect.isawaitable(result) for result in results):
            return results
        return list(self._wait_for(_gathered(results)))

    def _score(self, result: Any) -> Any:
        if not isinstance(result, dict):
            return result
        if "score" not in result:
            raise RewardError(f"function={self._path!r} returned a dict without score; it has {sorted(result)}")
        return result["score"]

    def _values(self, results: Any, num_completions: int) -> list[Value]:
        values = one_each(results, num_completions, f"function={self._path!r}")
        return [Unscored("the function returned None") if value is None else value for value in values]


async def _gathered(results: Sequence[Awaitable[Any]]) -> list[Any]:
    return list(await asyncio.gather(*results))


# ---- arguments ------------------------------------------------------------------------------------------------------


def trl_arguments(problems: Sequence[Problem], completions: Sequence[Completion]) -> dict[str, Any]:
    """What TRL's trainer passes, one entry a completion: prompts, completions, token ids, and each column of the data."""
    texts = [
        completion.text if isinstance(problem.prompt, str) else [{"role": "assistant", "content": completion.text}]
        for problem, completion in zip(problems, completions, strict=True)
    ]
    columns = [_columns(problem) for problem in problems]
    names = dict.fromkeys(name for row in columns for name in row if name not in NO_COLUMNS)
    return {
        "prompts": [_copied(problem.prompt) for problem in problems],
        "completions": texts,
        "completion_ids": [list(completion.token_ids) for completion in completions],
    } | {name: [row.get(name) for row in columns] for name in names}


def _columns(problem: Problem) -> dict[str, Any]:
    """The columns of the data set; the gold answer is `answer`, and `solution` too unless the data have such a column."""
    gold = _gold(problem)
    return {"solution": gold, **_meta(problem), "answer": gold, "source": problem.source}


def _gold(problem: Problem) -> str | list[str] | None:
    """The gold answer; all of them where there are several."""
    return problem.golds if problem.other_answers else problem.answer


def _meta(problem: Problem) -> dict[str, Any]:
    """The problem's other columns; a reasoning-gym entry is as the library made it, so that its scorers can read it."""
    is_entry = {"family", "entry"} <= problem.meta.keys()
    return problem.meta | ({"entry": decoded(problem.meta["entry"])} if is_entry else {})


def verl_arguments(problem: Problem, completion: Completion) -> dict[str, Any]:
    """What verl's reward manager passes for one completion."""
    own = problem.meta.get("extra_info")
    info = {"question": asked(problem.prompt), "index": problem.key, "split": problem.split}
    others = {name: value for name, value in _meta(problem).items() if name not in VERL_COLUMNS}
    return {
        "data_source": problem.meta.get("data_source", problem.source),
        "solution_str": completion.text,
        "ground_truth": _gold(problem),
        "extra_info": info | others | (own if isinstance(own, dict) else {}),
    }


def _copied(prompt: Prompt) -> str | list[Message]:
    return prompt if isinstance(prompt, str) else [dict(message) for message in prompt]
