"""Outcome reward: extracts the final answer and lets a checker compare it with the gold answer.

A missing answer is wrong (0.0). A check may exceed its time limit, raise, or end its process. If the same checker then
finishes on the problem's gold answer under the same limit, the response is at fault and gets 0.0 too: unscored, it would
get its group's mean and do better than a wrong one. Otherwise checker, machine or gold answer is at fault, and the
completion is unscored.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase

from configs.errors import RewardError
from configs.records import Completion, Problem, Prompt
from configs.schema.rewards import OutcomeRewardConfig
from reward_training.answers.checkers import choice, exact, math_equal, numeric
from reward_training.answers.finding.extraction import extractor, is_left_empty, is_strict
from reward_training.reward import AtFault, Found, Unscored, Value, WorksElsewhere
from reward_training.rewards.checker_pool import DIED, Check, CheckerPool

IN_POOL = ("reasoning_gym", "regex")
"""checkers that are other people's code or a user's pattern, which may hang on some text"""


class OutcomeReward(WorksElsewhere):
    """1 for a right final answer, else 0. Checkers in IN_POOL run in worker processes of `pool`."""

    def __init__(self, config: OutcomeRewardConfig, pool: CheckerPool | None = None) -> None:
        assert pool is not None or config.checker not in IN_POOL
        self.name = config.name
        self.weight = config.weight
        self.sources = config.sources
        self._config = config
        self._pool = pool
        self._finishes_on_gold: dict[str, bool] = {}
        """by problem key, whether the checker finished on the gold answer; only of problems with a check that failed"""

    def __call__(self, problems: Sequence[Problem], completions: Sequence[Completion]) -> list[Found]:
        """1.0 for a right answer, 0.0 for a wrong one, AtFault for one that makes the checker fail.

        A reasoning-gym scorer may give values in between.
        """
        pairs = zip(problems, completions, strict=True)
        answers = [given_answer(problem, completion, self._config) for problem, completion in pairs]
        values = [self._check_in_process(problem, answer) for problem, answer in zip(problems, answers, strict=True)]
        pending = [i for i, value in enumerate(values) if value is None]
        checked = self._check_in_pool([problems[i] for i in pending], [answers[i] or "" for i in pending])
        pool_values = dict(zip(pending, checked, strict=True))
        return [pool_values[i] if value is None else value for i, value in enumerate(values)]

    def _check_in_process(self, problem: Problem, answer: str | None) -> float | None:
        """The value, or None if only a worker of the pool can decide it. Any of several gold answers is right."""
        if answer is None:
            return 0.0
        if self._config.checker in IN_POOL:
            return None
        return max(self._compared(answer, gold, problem) for gold in self._golds(problem))

    def _compared(self, answer: str, gold: str, problem: Problem) -> float:
        match self._config.checker:
            case "exact":
                return float(exact(answer, gold))
            case "numeric":
                return float(numeric(answer, gold, self._config.tolerance, asked(problem.prompt)))
            case "choice":
                return float(choice(answer, gold.strip(), self._choices(problem)))
            case checker:
                assert checker == "math"
                return math_equal(answer, gold, asked(problem.prompt))

    def _golds(self, problem: Problem) -> list[str]:
        """The gold answers.

        Raises:
            RewardError: the problem has none.
        """
        if not problem.golds:
            raise RewardError(
                f"reward {self.name!r}: problem {problem.key} of source {problem.source!r} has no gold answer, with which "
                f"checker: {self._config.checker} compares; give one, or use a reward that needs none"
            )
        return problem.golds

    def _choices(self, problem: Problem) -> dict[str, str]:
        """The text of each choice, by letter.

        Raises:
            RewardError: the problem has no choices, or a gold answer is not one of their letters.
        """
        choices = problem.meta.get(self._config.choices)
        if isinstance(choices, list):
            choices = dict(zip(ascii_uppercase, choices, strict=False))
        if not isinstance(choices, dict) or any(gold.strip() not in choices for gold in problem.golds):
            raise RewardError(
                f"reward {self.name!r}: problem {problem.key} of source {problem.source!r} has the answer {problem.answer!r} and "
                f"the column {self._config.choices!r} {choices!r}; "
                "checker choice needs a letter and {letter: text} or a list of texts: name the column in columns.options"
            )
        return {str(letter): str(words) for letter, words in choices.items()}

    def _check_in_pool(self, problems: list[Problem], answers: list[str]) -> list[Found]:
        """A value for each answer. Equal answers to one problem are checked once."""
        if not problems:
            return []
        keys = [(problem.key, answer) for problem, answer in zip(problems, answers, strict=True)]
        distinct = dict(zip(keys, problems, strict=True))
        checks = [self._check(problem, answer) for (_, answer), problem in distinct.items()]
        values: dict[tuple[str, str], Found] = dict(zip(distinct, self._run(checks), strict=True))
        failed = {key: value for key, value in values.items() if isinstance(value, Unscored)}
        values |= self._blamed({key: (distinct[key], failure) for key, failure in failed.items()})
        return [values[key] for key in keys]

    def _blamed(self, failed: dict[tuple[str, str], tuple[Problem, Unscored]]) -> dict[tuple[str, str], Found]:
        """What failed checks amount to: AtFault where the checker finishes on the gold answer, else Unscored.

        A check whose process died is made once more, because the machine may have ended the process.
        """
        self._look_at_golds([problem for problem, _ in failed.values()])
        blamed = {key: failure for key, (problem, failure) in failed.items() if self._finishes_on_gold[problem.key]}
        again = [key for key, failure in blamed.items() if failure.reason == DIED]
        second = self._run([self._check(failed[key][0], key[1]) for key in again])
        values: dict[tuple[str, str], Value] = {**blamed, **dict(zip(again, second, strict=True))}
        return {key: AtFault(v.reason) if isinstance(v, Unscored) else v for key, v in values.items()}

    def _look_at_golds(self, problems: list[Problem]) -> None:
        """Find out whether the checker finishes on the gold answers of the problems, once for each; without one, on the
        empty text."""
        unknown = {problem.key: problem for problem in problems if problem.key not in self._finishes_on_gold}
        values = self._run([self._check(problem, problem.answer or "") for problem in unknown.values()])
        for key, value in zip(unknown, values, strict=True):
            self._finishes_on_gold[key] = not isinstance(value, Unscored)

    def _run(self, checks: list[Check]) -> list[Value]:
        assert self._pool is not None
        return self._pool.run(checks) if checks else []

    def _check(self, problem: Problem, answer: str) -> Check:
        if self._config.checker == "regex":
            return Check("regex", (answer, self._config.pattern), self._config.timeout_s)
        if not {"family", "entry"} <= problem.meta.keys():
            raise RewardError(
                f"reward {self.name!r}: problem {problem.key} of source {problem.source!r} has no reasoning-gym entry; "
                "use checker: exact or math for this source"
            )
        entry = (problem.meta["family"], problem.meta["entry"], problem.meta.get("options", {}))
        return Check("reasoning_gym", (answer, *entry), self._config.timeout_s)


def given_answer(problem: Problem, completion: Completion, config: OutcomeRewardConfig) -> str | None:
    """The answer that the reward compares with the gold answer; None where the response has none.

    A place of the answer that is left empty is one only where the gold answer is empty too.

    The strict rules read what the prompt began of the response too: an opened thought has no answer in it. The plain
    ones, which are those of most papers, read the text as it is.
    """
    text = completion.response if is_strict(config) else completion.text
    answer = extractor(config)(text, asked(problem.prompt))
    is_empty_gold = problem.answer is not None and not problem.answer.strip()
    return "" if answer is None and is_empty_gold and is_left_empty(text, config) else answer


def asked(prompt: Prompt) -> str:
    """The text of a prompt's last message."""
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]
