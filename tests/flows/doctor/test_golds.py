"""What the doctor says of gold answers: their types, cut-off ones, right ones that are refused and wrong ones that pass."""

import json
from pathlib import Path

import pytest

from configs.records import Problem
from configs.schema.config import Config
from configs.schema.rewards import OutcomeRewardConfig
from flows.doctor import golds
from flows.doctor.checks import Finding
from flows.doctor.golds import check_answer_types, check_gold_answers
from reward_training.answers.gold import type_of
from reward_training.reward import Reward
from reward_training.rewards.outcome import OutcomeReward

MIXED = ["12", "3xy + 5", "(1, 2)", r"\{1, 4\}", "[2, 7)", r"\begin{pmatrix}1 & 2\\3 & 4\end{pmatrix}", "x^2 + y^2 = 4", "1, 2", "Paris", "5 m"]  # fmt: skip


def problems(answers: list[str]) -> list[Problem]:
    return [
        Problem(key=str(i), prompt=f"{i}?", answer=a, answer_type=type_of(a), source="a.jsonl", split="train")
        for i, a in enumerate(answers)
    ]


def checked(answers: list[str], **settings: object) -> dict[str, Finding]:
    """The findings about a reward `right`, by name."""
    reward = OutcomeRewardConfig.model_validate({"name": "right", "extract": "final", "checker": "math"} | settings)
    config = Config.model_construct(rewards=[reward], evaluation=Config.model_fields["evaluation"].default)
    return {found.name: found for found in check_gold_answers(config, problems(answers), quick=True)}


def test_types_are_counted_and_an_unread_answer_is_shown() -> None:
    counts, broken, unread, solutions = check_answer_types(
        problems(["12", "13", "x+1", r"\frac{1", r"\int_0^1 x", "3 + 4 = 7 #### 7"])
    )
    assert counts.detail == "number 2, unread 2, expression 1, broken 1"
    assert broken.detail == r"1, for instance '\\frac{1' of a.jsonl"
    assert "answer_place" in broken.remedy
    assert unread.detail.startswith(r"2, for instance '\\int_0^1 x', ")
    assert solutions.remedy == "set answer_place: hash in the source"
    assert [found.status for found in (counts, broken, unread, solutions)] == ["ok", "warn", "warn", "warn"]


def test_checker_that_does_not_fit_the_problems_is_a_finding() -> None:
    """It ended the doctor with a traceback, and the table of checks was lost."""
    found = checked(["A"], checker="choice")["gold answers, right"]
    assert found.status == "fail"
    assert "has the answer 'A' and the column 'choices' None" in found.detail


def test_gold_answers_of_all_types_pass_in_other_writings_and_fail_when_changed() -> None:
    found = checked(MIXED)
    assert found["gold answers, right"].detail == "10 of 10 pass"
    assert found["other writings, right"].detail.startswith("30 of 30 pass")
    assert found["changed answers, right"].status == "ok"


def test_a_checker_that_reads_the_last_number_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compared with themselves alone, these gold answers all pass."""

    class LastNumber(OutcomeReward):
        def __call__(self, problems, completions):  # type: ignore[no-untyped-def]
            pairs = zip(problems, completions, strict=True)
            return [float(c.text.rstrip("}$. ")[-1] == p.answer.rstrip("}$. ")[-1]) for p, c in pairs]

    def build(configs: list[OutcomeRewardConfig], models: object) -> "Built":
        return Built([LastNumber(config) for config in configs])

    monkeypatch.setattr(golds, "build_rewards", build)
    found = checked(["3x + 5", "7x + 5"])
    assert found["gold answers, right"].status == "ok"
    assert found["changed answers, right"].status == "warn"
    assert found["changed answers, right"].detail == "2 of 4 pass, for instance '4x + 5' of a.jsonl"


class Built(list[Reward]):
    """Rewards as the context that `build_rewards` gives."""

    def __enter__(self) -> list[Reward]:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def test_a_checker_that_reads_no_notation_is_told() -> None:
    found = checked([r"\frac{1}{2}"], checker="exact")
    assert "other writings, right" not in found
    found = checked(["x + 1"] * 3, checker="numeric")
    assert found["gold answers, right"].status == "fail"


def test_gold_answers_are_taken_out_of_solutions(workspace: Path) -> None:
    """A lazy pattern took `\\frac{1` out of `\\boxed{\\frac{1}{2}}`, which passes where it is compared with itself."""
    from configs.schema.problems import FileSource
    from grpo_train.problems.sources import read_source

    rows = [r"So it is $\boxed{\frac{1}{2}}$.", r"Hence \boxed{3} and \boxed{-3}.", "no box"]
    Path("a.jsonl").write_text("".join(json.dumps({"question": f"{len(a)}?", "answer": a}) + "\n" for a in rows))
    found = read_source(FileSource(path="a.jsonl", answer_place="boxed"))
    assert [problem.answer for problem in found.problems] == [r"\frac{1}{2}", "3, -3"]
    assert found.num_unmatched == 1
    assert [type_of(problem.answer) for problem in found.problems] == ["number", "list"]


def test_source_of_which_all_fail_is_a_failure_beside_a_larger_one() -> None:
    """It was a warning, since the larger source passes."""
    reward = OutcomeRewardConfig(name="right")
    config = Config.model_construct(rewards=[reward], evaluation=Config.model_fields["evaluation"].default)
    words = [problem.model_copy(update={"source": "b.jsonl"}) for problem in problems(["red", "blue"])]
    [found] = [
        f for f in check_gold_answers(config, [*problems(["1", "2", "3"]), *words], quick=True) if "gold" in f.name
    ]
    assert (found.status, found.detail) == ("fail", "2 of 2 fail, for instance 'red' of b.jsonl")


def test_problems_without_gold_answers_are_told() -> None:
    open_ones = [problem.model_copy(update={"answer": None, "answer_type": ""}) for problem in problems(["1", "2"])]
    config = Config.model_construct(
        rewards=[OutcomeRewardConfig(name="right")], evaluation=Config.model_fields["evaluation"].default
    )
    [found] = check_gold_answers(config, open_ones, quick=True)
    assert (found.status, found.detail) == (
        "fail",
        "2 problems of a.jsonl have no gold answer, which checker: exact needs",
    )
    digits = OutcomeRewardConfig(name="right", checker="regex", pattern="[0-9]+")
    [found] = check_gold_answers(config.model_copy(update={"rewards": [digits]}), open_ones, quick=False)
    assert (found.status, found.detail) == ("ok", "a.jsonl without gold answers, judged by the checker alone")


def test_empty_gold_answers_are_counted_as_such() -> None:
    [counts] = check_answer_types(problems(["", "5"]))
    assert counts.detail == "empty 1, number 1"
    found = checked(["", "x + 1"], extract="tag")
    assert found["gold answers, right"].detail == "2 of 2 pass"
