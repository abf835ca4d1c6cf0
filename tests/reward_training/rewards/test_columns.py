"""Which columns of the data rewards read, and what they get of problems with several gold answers."""

import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from configs.records import Completion, Problem
from configs.schema.rewards import OutcomeRewardConfig, PythonRewardConfig
from reward_training.rewards.columns import ColumnsRead, columns_read
from reward_training.rewards.outcome import OutcomeReward
from reward_training.rewards.python_function import PythonReward
from reward_training.scorer import build_rewards, score

Make = Callable[..., Completion]
MakeProblem = Callable[..., Problem]

MODULE = '''
"""Scores."""
SEEN = []

def of_trl(completions, unit, weight=1.0, **kwargs):
    SEEN.append((unit, kwargs["answer"], kwargs["solution"]))
    return [float(level == 3) for level in kwargs["level"]]

def compute_score(data_source, solution_str, ground_truth, extra_info):
    SEEN.append((data_source, ground_truth, extra_info["tests"], extra_info["index"]))
    return 1.0
'''


def _python(name: str) -> PythonRewardConfig:
    return PythonRewardConfig(name=name, function=f"columns_of_mine:{name}")


@pytest.fixture
def module(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(workspace))
    monkeypatch.delitem(sys.modules, "columns_of_mine", raising=False)  # that of another test's folder
    (workspace / "columns_of_mine.py").write_text(MODULE)


@pytest.mark.usefixtures("module")
def test_a_function_reads_its_parameters_and_what_its_module_names() -> None:
    of_trl = columns_read([_python("of_trl")])
    assert {"unit", "weight", "level"} < of_trl.names
    assert "data_source" not in of_trl.names
    assert {"data_source", "extra_info", "tests"} < columns_read([_python("compute_score")]).names


def test_a_choice_reads_its_choices_and_other_rewards_nothing() -> None:
    choice = OutcomeRewardConfig(name="right", checker="choice", choices="opts")
    assert columns_read([choice, OutcomeRewardConfig(name="same")]) == ColumnsRead(choices=frozenset({"opts"}))
    assert columns_read([PythonRewardConfig(name="x", function="not_there:f")]) == ColumnsRead()


@pytest.mark.usefixtures("module")
def test_functions_get_the_columns_and_all_gold_answers(make_problem: MakeProblem, make_completion: Make) -> None:
    meta = {"unit": "cm", "level": 3, "data_source": "mine", "extra_info": {"tests": ["x"], "index": 7}}
    problem = make_problem(answer="5", other_answers=["five"], meta=meta)
    for name in ("of_trl", "compute_score"):
        with closing(PythonReward(_python(name))) as reward:
            assert reward([problem], [make_completion("5")]) == [1.0]
    import columns_of_mine

    assert columns_of_mine.SEEN == [(["cm"], [["5", "five"]], [["5", "five"]]), ("mine", ["5", "five"], ["x"], 7)]


@pytest.mark.parametrize(
    ("checker", "golds", "right", "wrong"),
    [
        ("exact", ["Rome", "Roma"], "roma", "Romo"),
        ("numeric", ["0.5", "50"], "1/2", "5"),
        ("math", ["\\frac{1}{2}", "no solution"], "0.5", "0.2"),
        ("choice", ["A", "C"], "(c)", "B"),
    ],
)
def test_any_gold_answer_is_right(
    checker: str, golds: list[str], right: str, wrong: str, make_problem: MakeProblem, make_completion: Make
) -> None:
    meta = {"choices": {"A": "red", "B": "blue", "C": "green"}}
    problem = make_problem(answer=golds[0], other_answers=golds[1:], meta=meta)
    reward = OutcomeReward(OutcomeRewardConfig(name="right", extract="whole", checker=checker))
    texts = [golds[0], right, wrong]
    assert reward([problem] * 3, [make_completion(text) for text in texts]) == [1.0, 1.0, 0.0]


def test_a_key_error_says_how_a_column_is_kept(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, make_problem: MakeProblem, make_completion: Make
) -> None:
    monkeypatch.syspath_prepend(str(workspace))
    (workspace / "made_up_names.py").write_text(
        "def f(problems, completions):\n    return [p.meta['le' + 'vel'] for p in problems]\n"
    )
    config = PythonRewardConfig(name="mine", function="made_up_names:f")
    with (
        build_rewards([config], {}) as rewards,
        pytest.raises(Exception, match=r"KeyError: 'level'; mend .*columns\.keep"),
    ):
        score([make_problem()], [make_completion("5")], rewards)
