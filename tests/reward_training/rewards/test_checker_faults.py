"""A response that makes its checker fail is wrong, not unscored, if the checker finishes on the gold answer.

The checkers here are ours and sleep, raise or end their process when asked to; nothing is given to a library that might hang.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from configs.records import Completion, Problem, Score
from configs.schema.rewards import OutcomeRewardConfig, ProcessRewardConfig
from reward_training.reward import AtFault, Found, Unscored, Value
from reward_training.rewards.checker_pool import Check, CheckerPool
from reward_training.rewards.outcome import OutcomeReward
from reward_training.rewards.process import ProcessReward
from reward_training.scorer import check_unscored, score

Make = Callable[..., Completion]
MakeProblem = Callable[..., Problem]

LIBRARY = """
import os, pathlib, signal, time

def get_score_answer_fn(family):
    def sleeps(answer, entry):
        if answer in entry["on"]:
            time.sleep(60)
        return float(answer == entry["answer"])
    def raises(answer, entry):
        if answer in entry["on"]:
            raise KeyError(answer)
        return float(answer == entry["answer"])
    def dies(answer, entry):
        if answer in entry["on"]:
            os._exit(3)
        return float(answer == entry["answer"])
    def killed_once(answer, entry):
        mark = pathlib.Path(entry["on"])
        if answer == "7" and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return float(answer == entry["answer"])
    return locals()[family]
"""


class Counting(CheckerPool):
    """Keeps the answers that it was asked to check."""

    def __init__(self) -> None:
        super().__init__(["reasoning_gym"], num_workers=2)
        self.asked: list[str] = []

    def run(self, checks: Sequence[Check]) -> list[Value]:
        self.asked += [str(check.arguments[0]) for check in checks]
        return super().run(checks)


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counting]:
    (tmp_path / "reasoning_gym.py").write_text(LIBRARY)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    with Counting() as pool:
        yield pool


def reward(pool: CheckerPool, timeout_s: float = 20.0) -> OutcomeReward:
    config = {"name": "correct", "checker": "reasoning_gym", "timeout_s": timeout_s}
    return OutcomeReward(OutcomeRewardConfig.model_validate(config), pool)


def problem(make_problem: MakeProblem, family: str, on: object, key: str = "p") -> Problem:
    return make_problem(key, meta={"family": family, "entry": {"answer": "5", "on": on}})


def values(reward: OutcomeReward, asked: Problem, texts: list[str], make: Make) -> list[Found]:
    return list(reward([asked] * len(texts), [make(text) for text in texts]))


@pytest.mark.parametrize(
    ("family", "timeout_s", "reason"),
    [
        ("sleeps", 2.0, "timeout after 2 s"),
        ("raises", 20.0, "checker raised KeyError: '7'"),
        ("dies", 20.0, "checker died"),
    ],
)
def test_the_text_is_at_fault_where_the_checker_finishes_on_the_gold_answer(
    family: str, timeout_s: float, reason: str, pool: Counting, make_problem: MakeProblem, make_completion: Make
) -> None:
    asked = problem(make_problem, family, on=["7"])
    found = values(reward(pool, timeout_s), asked, ["5", "6", "7"], make_completion)
    assert found == [1.0, 0.0, AtFault(reason)]


@pytest.mark.parametrize(
    ("family", "timeout_s", "reason"),
    [
        ("sleeps", 2.0, "timeout after 2 s"),
        ("raises", 20.0, "checker raised KeyError: '7'"),
        ("dies", 20.0, "checker died"),
    ],
)
def test_the_text_is_not_at_fault_where_the_checker_fails_on_the_gold_answer_too(
    family: str, timeout_s: float, reason: str, pool: Counting, make_problem: MakeProblem, make_completion: Make
) -> None:
    asked = problem(make_problem, family, on=["5", "7"])
    assert values(reward(pool, timeout_s), asked, ["6", "7"], make_completion) == [0.0, Unscored(reason)]


def test_the_gold_answer_is_checked_once_for_each_problem_and_only_where_a_check_failed(
    pool: Counting, make_problem: MakeProblem, make_completion: Make
) -> None:
    correct = reward(pool)
    first, second = (problem(make_problem, "raises", on=["7", "8"], key=key) for key in ("p", "q"))
    values(correct, first, ["6"], make_completion)
    assert pool.asked == ["6"]
    assert values(correct, first, ["7", "7"], make_completion) == [AtFault("checker raised KeyError: '7'")] * 2
    assert values(correct, first, ["8"], make_completion) == [AtFault("checker raised KeyError: '8'")]
    assert pool.asked == ["6", "7", "5", "8"]
    values(correct, second, ["8"], make_completion)
    assert pool.asked == ["6", "7", "5", "8", "8", "5"]


def test_a_check_whose_process_the_machine_ended_is_made_again(
    pool: Counting, tmp_path: Path, make_problem: MakeProblem, make_completion: Make
) -> None:
    asked = problem(make_problem, "killed_once", on=str(tmp_path / "mark"))
    assert values(reward(pool), asked, ["7"], make_completion) == [0.0]
    assert pool.asked == ["7", "5", "7"]


def test_a_score_keeps_the_reason_and_the_share_of_unscored_ones_does_not_count_it(
    pool: Counting, make_problem: MakeProblem, make_completion: Make
) -> None:
    asked = problem(make_problem, "raises", on=["7"])
    wrong, faulty = score([asked] * 2, [make_completion("6"), make_completion("7")], [reward(pool)])
    assert (faulty.parts, faulty.total, faulty.unscored) == ({"correct": 0.0}, 0.0, {})
    assert faulty.faults == {"correct": "checker raised KeyError: '7'"}
    assert (wrong.total, wrong.faults) == (0.0, {})
    check_unscored([wrong, faulty], 0.0)


def test_a_score_of_an_older_file_has_no_faults() -> None:
    assert Score.model_validate_json('{"parts": {"correct": 1.0}, "unscored": {}, "total": 1.0}').faults == {}


def test_a_step_at_fault_is_worth_nothing(pool: Counting, make_problem: MakeProblem, make_completion: Make) -> None:
    steps = ProcessReward(ProcessRewardConfig(name="steps", checked_by="correct"), reward(pool))
    asked = problem(make_problem, "raises", on=["7"])
    assert steps([asked], [make_completion("5\n7")]) == [0.5]  # (1 + 0) / 2
