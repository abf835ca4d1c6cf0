"""The process reward: where steps end, whether their equations are right, and the value of a response."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from configs.errors import RewardError
from configs.records import Completion, Problem
from configs.schema.config import Config
from configs.schema.rewards import FormatRewardConfig, ProcessRewardConfig
from reward_training.answers.arithmetic import equations
from reward_training.reward import Stepwise, Unscored, Value
from reward_training.rewards import process
from reward_training.rewards.process import step_ends
from reward_training.scorer import build_rewards, score

Make = Callable[..., Completion]
MakeProblem = Callable[..., Problem]


@pytest.mark.parametrize(
    ("text", "verdicts"),
    [
        ("17 + 25 = 42", [True]),
        ("17 + 25 = 43", [False]),
        ("17+25=42.", [True]),
        ("So 3 * (4 + 1) = 15, fine", [True]),
        ("2 + 3 * 4 = 20", [False]),  # not from left to right
        ("10 - 2 - 3 = 5", [True]),
        ("-3 + 5 = 2", [True]),
        ("6 / 4 = 1.5", [True]),
        ("2 / 3 = 0.67", [True]),  # right to its last place
        ("2 / 3 = 0.66", [False]),
        ("1,000 + 1 = 1,001", [True]),
        ("3 × 4 = 12 and 12 ÷ 5 = 2.4", [True, True]),
        ("3 \\times 4 = 12", [True]),
        ("\\frac{6}{3} + 1 = 3", [True]),
        ("3 x 4 = 13", [False]),
        ("$5 + $3 = $8", [True]),
        ("2 + 2 = 4 = 2 * 2", [True, True]),
        ("2 + 2 = 4 = 5 - 2", [True, False]),
        ("**2 + 2 = 4**", [True]),
        ("7 \u2212 9 = \u22122", [True]),
        ("x = 5", []),
        ("x + 2 = 5", []),  # an unknown: no sum of numbers
        ("the answer is 42", []),
        ("x + 2 + 3 = 9", []),
        ("2 + 3 = 5x", []),
        ("x = 2 + 3 = 5", [True]),
        ("2 + 3 = 5 apples", [True]),
        ("Step 2: 3 + 4 = 7", [True]),
        ("5 = 5", []),
        ("3 / 0 = 1", []),
        ("(3 + 4 = 7", []),
        ("2^3 = 8", []),  # a power is not read
        ("1" * 50 + " + 1 = 2", []),
        ("", []),
        ("= = =", []),
        ("__import__('os') = 1 + 1", []),
    ],
)
def test_equations(text: str, verdicts: list[bool]) -> None:
    assert equations(text) == verdicts


@given(st.integers(-999, 999), st.integers(-999, 999), st.sampled_from("+-*"), st.integers(-2, 2))
def test_every_sum_is_right_exactly_when_it_is(a: int, b: int, sign: str, off: int) -> None:
    result = {"+": a + b, "-": a - b, "*": a * b}[sign]
    assert equations(f"First, {a} {sign} ({b}) = {result + off}") == [off == 0]


@given(st.text(alphabet="0123456789+-*/()=., x$%^\n", max_size=80))
def test_any_text_can_be_read(text: str) -> None:
    assert all(isinstance(verdict, bool) for verdict in equations(text))


@pytest.mark.parametrize(
    "text", ["9" * 20_000, "1 " * 10_000, "1.," * 7_000, "= " * 10_000, "1+" * 10_000 + "= 1", "(" * 20_000 + "= 1"]
)
def test_a_long_text_takes_no_longer_than_its_length(text: str) -> None:
    """A pattern that could match a run of digits in many ways took hours on one of 4,000."""
    began = time.perf_counter()
    equations(text)
    assert time.perf_counter() - began < 2


def test_steps_end_where_lines_or_sentences_do() -> None:
    text = "3.5 + 1 = 4.5. Next!\n\n  \nDone"
    assert [text[:end] for end in step_ends(text, "lines")] == ["3.5 + 1 = 4.5. Next!", text]
    assert [text[:end] for end in step_ends(text, "sentences")] == ["3.5 + 1 = 4.5.", "3.5 + 1 = 4.5. Next!", text]
    assert step_ends(" \n ", "lines") == []


STEPS = "2 + 2 = 4\nSo far so good\n4 + 4 = 9\n9 - 1 = 8\n<answer>8 = 7 + 2</answer>"


@pytest.mark.parametrize(
    ("settings", "text", "value"),
    [
        ({"before": "<answer>"}, STEPS, 2 / 3),  # right, nothing to check, wrong, right
        ({"before": "<answer>", "reduce": "min"}, STEPS, 0.0),
        ({}, STEPS, 2 / 4),  # the answer's line is a step too
        ({}, "I think it is 8", 0.0),
        ({"if_none": 0.3}, "I think it is 8", 0.3),
        ({}, "", 0.0),
        ({"split": "sentences"}, "1 + 1 = 2. 1 + 2 = 4.", 0.5),
        ({"split": "lines"}, "1 + 1 = 2. 1 + 2 = 4.", 0.0),  # one step with a wrong sum in it
    ],
)
def test_value_by_arithmetic(
    settings: dict[str, object], text: str, value: float, make_problem: MakeProblem, make_completion: Make
) -> None:
    reward = process.ProcessReward(ProcessRewardConfig.model_validate({"name": "steps"} | settings))
    assert reward([make_problem()], [make_completion(text)]) == [pytest.approx(value)]


@dataclass
class Asked:
    """A reward that records the texts it scores."""

    values: list[Value]
    texts: list[str] = field(default_factory=list)
    name: str = "asked"
    weight: float = 0.0

    def __call__(self, problems: Sequence[Problem], completions: Sequence[Completion]) -> Sequence[Value]:
        self.texts = [completion.text for completion in completions]
        return self.values[: len(completions)]


def test_another_reward_looks_at_the_text_up_to_each_step(make_problem: MakeProblem, make_completion: Make) -> None:
    checker = Asked([0.2, 0.6, Unscored("timeout"), 0.9])
    reward = process.ProcessReward(ProcessRewardConfig(name="steps", checked_by="asked"), checker)
    values = reward([make_problem()] * 2, [make_completion("a\nb"), make_completion("c\nd\n")])
    assert checker.texts == ["a", "a\nb", "c", "c\nd"]
    assert values == [pytest.approx(0.4), pytest.approx(0.9)]


def test_what_the_prompt_begins_is_no_step_and_the_checker_sees_it(
    make_problem: MakeProblem, make_completion: Make
) -> None:
    settings = [
        ProcessRewardConfig(name="steps", checked_by="opened"),
        FormatRewardConfig(name="opened", pattern="^<think>\na", weight=0),
    ]
    checker = Asked([0.5, 0.5])
    asking = process.ProcessReward(ProcessRewardConfig(name="steps", checked_by="asked"), checker)
    completions = [make_completion("a\n</think>", begun="<think>\n")]
    asking([make_problem()], completions)
    assert checker.texts == ["a", "a\n</think>"]
    with build_rewards(settings, {}) as rewards:
        steps = next(reward for reward in rewards if reward.name == "steps")
        assert steps([make_problem()], completions) == [1.0]


def test_a_response_none_of_whose_steps_could_be_scored_is_missing(
    make_problem: MakeProblem, make_completion: Make
) -> None:
    checker = Asked([Unscored("timeout"), Unscored("status 500")])
    reward = process.ProcessReward(ProcessRewardConfig(name="steps", checked_by="asked"), checker)
    assert reward([make_problem()], [make_completion("a\nb")]) == [Unscored("timeout")]


def test_a_process_reward_finds_the_reward_that_it_names(make_problem: MakeProblem, make_completion: Make) -> None:
    settings = [
        ProcessRewardConfig(name="steps", checked_by="digits"),
        FormatRewardConfig(name="digits", pattern="[0-9]$", weight=0),
    ]
    with build_rewards(settings, {}) as rewards:
        assert {reward.name for reward in rewards} == {"steps", "digits"}
        steps = next(reward for reward in rewards if reward.name == "steps")
        assert steps([make_problem()], [make_completion("see 1\nand\nso 2")]) == [pytest.approx(2 / 3)]


def test_a_checker_that_is_not_there_is_refused_by_name() -> None:
    settings = {
        "policy": {"path": "x"},
        "problems": {"sources": [{"kind": "jsonl", "path": "x"}]},
        "rewards": [{"name": "correct", "kind": "outcome"}, {"name": "steps", "kind": "process", "checked_by": "prm"}],
    }
    with pytest.raises(ValidationError, match="checked_by='prm' is neither arithmetic nor another reward"):
        Config.model_validate(settings)


def test_steps_that_are_kept_carry_their_ends_and_their_mean(make_problem: MakeProblem, make_completion: Make) -> None:
    reward = process.ProcessReward(ProcessRewardConfig(name="steps", reduce="per_step", if_none=0.3))
    text = "1 + 1 = 2\nso\n2 + 2 = 5"
    values = reward([make_problem()] * 2, [make_completion(text), make_completion("so")])
    assert values == [Stepwise(0.5, ((9, 1.0), (len(text), 0.0))), 0.3]


def test_a_score_holds_the_kept_steps_and_their_mean_as_its_part(
    make_problem: MakeProblem, make_completion: Make
) -> None:
    settings = [
        ProcessRewardConfig(name="steps", reduce="per_step", weight=2.0),
        FormatRewardConfig(name="digits", pattern="5"),
    ]
    with build_rewards(settings, {}) as rewards:
        [found] = score([make_problem()], [make_completion("1 + 1 = 2\n2 + 2 = 5")], rewards)
    assert found.parts == {"steps": 0.5, "digits": 1.0}
    assert found.steps == [(9, 1.0), (19, 0.0)]
    assert found.total == 2.0


def test_a_step_that_is_no_number_stops_the_stage(make_problem: MakeProblem, make_completion: Make) -> None:
    reward = process.ProcessReward(
        ProcessRewardConfig(name="steps", reduce="per_step", checked_by="asked"), Asked([float("nan")])
    )
    with pytest.raises(RewardError, match=r"'steps' on problem .* returned nan"):
        score([make_problem()], [make_completion("a")], [reward])
