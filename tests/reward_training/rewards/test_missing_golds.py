"""A gold answer that is empty is an answer; a problem without a gold answer has None, which only some rewards can do with."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from configs.errors import RewardError
from configs.records import Completion, Problem
from configs.schema.rewards import JudgeRewardConfig, OutcomeRewardConfig
from reward_training.judges.judge import JudgeReward
from reward_training.rewards.checker_pool import CheckerPool
from reward_training.rewards.outcome import OutcomeReward

Make = Callable[..., Completion]
MakeProblem = Callable[..., Problem]

EMPTY = {
    "whole": ["", " \n"],
    "tag": ["No root. <answer></answer>", "<answer> </answer>\n"],
    "boxed": [r"None: $\boxed{}$.", r"\boxed{ }", r"\(\boxed{}\)"],
    "hash": ["No root.\n#### "],
    "json": ['{"answer": ""}', 'So: {"why": "no root", "answer": ""}'],
    "final": [r"\boxed{}", "####", "<answer></answer>"],
}
WRONG = {
    "whole": ["x"],
    "tag": ["<answer>x</answer>", "No root.", ""],
    "boxed": [r"\boxed{}, no: \boxed{3}", r"\boxed{3}", "", r"\boxed{} or x"],
    "hash": ["#### 3", ""],
    "json": ['{"answer": "x"}', ""],
    "final": ["The answer is 3.", ""],
    "last_number": ["", "3"],
    "answer_is": ["", "The answer is 3."],
}


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("checker", ["exact", "math"])
def test_empty_gold_answer_is_met_by_an_empty_place_alone(
    checker: str, strict: bool, make_problem: MakeProblem, make_completion: Make
) -> None:
    """Taken for a missing one, it was right in `<answer></answer>` alone, and only without `strict`."""
    for cases, value in ((EMPTY, 1.0), (WRONG, 0.0)):
        for extract, texts in cases.items():
            config = {"name": "right", "checker": checker, "extract": extract, "strict": strict}
            reward = OutcomeReward(OutcomeRewardConfig.model_validate(config))
            found = reward([make_problem(answer="")] * len(texts), [make_completion(text) for text in texts])
            assert found == [value] * len(texts), extract


@pytest.mark.parametrize("extract", ["tag", "boxed", "whole"])
def test_empty_place_is_no_answer_to_another_gold(
    extract: str, make_problem: MakeProblem, make_completion: Make
) -> None:
    reward = OutcomeReward(OutcomeRewardConfig.model_validate({"name": "right", "extract": extract}))
    texts = EMPTY[extract]
    assert reward([make_problem()] * len(texts), [make_completion(text) for text in texts]) == [0.0] * len(texts)


@pytest.mark.parametrize("checker", ["exact", "numeric", "choice", "math"])
def test_checker_that_compares_needs_a_gold_answer(
    checker: str, make_problem: MakeProblem, make_completion: Make
) -> None:
    reward = OutcomeReward(
        OutcomeRewardConfig.model_validate({"name": "right", "checker": checker, "extract": "whole"})
    )
    with pytest.raises(RewardError, match=f"source 'test' has no gold answer, with which checker: {checker} compares"):
        reward([make_problem(answer=None)], [make_completion("5")])


def test_pattern_needs_no_gold_answer(make_problem: MakeProblem, make_completion: Make) -> None:
    config = {"name": "right", "checker": "regex", "extract": "whole", "pattern": "[0-9]+"}
    with CheckerPool(["json"], num_workers=1) as pool:
        reward = OutcomeReward(OutcomeRewardConfig.model_validate(config), pool)
        found = reward([make_problem(answer=None)] * 2, [make_completion("5"), make_completion("x")])
    assert found == [1.0, 0.0]


@pytest.mark.parametrize(("answer", "is_shown"), [("5", True), ("", True), (None, False)])
def test_judge_sees_the_gold_answer_where_there_is_one(
    answer: str | None, is_shown: bool, tmp_path: Path, make_problem: MakeProblem
) -> None:
    (tmp_path / "rubric.md").write_text("Is it right?")
    config = {"name": "judge", "base_url": "http://127.0.0.1:9", "model": "m", "with_answer": True}
    config["rubric"] = str(tmp_path / "rubric.md")
    with closing(JudgeReward(JudgeRewardConfig.model_validate(config))) as judge:
        question = judge._score_question(make_problem(answer=answer), "5 apples")
    assert ("Right answer:" in question.user) == is_shown
