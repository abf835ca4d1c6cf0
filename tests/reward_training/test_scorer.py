"""The scorer: totals, missing parts, and rewards that raise or return invalid values."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import RewardError
from configs.records import Completion, Problem, Score
from configs.schema.rewards import (
    FormatRewardConfig,
    LengthRewardConfig,
    ModelRewardConfig,
    OutcomeRewardConfig,
    ProcessRewardConfig,
    RewardConfig,
)
from reward_training.reward import Unscored, Value, WorksElsewhere, WorksTogether
from reward_training.rewards.process import ProcessReward, ShardedProcessReward
from reward_training.scorer import Scoring, build_rewards, check_unscored, score

Make = Callable[..., Completion]
MakeProblem = Callable[..., Problem]


@dataclass
class Fixed:
    """A reward that returns fixed values."""

    values: Any
    name: str = "fixed"
    weight: float = 1.0

    def __call__(self, problems: Sequence[Problem], completions: Sequence[Completion]) -> Sequence[Value]:
        return self.values


@dataclass
class RaisesOn:
    text: str
    name: str = "broken"
    weight: float = 1.0

    def __call__(self, problems: Sequence[Problem], completions: Sequence[Completion]) -> Sequence[Value]:
        if any(completion.text == self.text for completion in completions):
            raise KeyError("no such column")
        return [0.0] * len(completions)


@pytest.fixture
def batch(make_problem: MakeProblem, make_completion: Make) -> tuple[list[Problem], list[Completion]]:
    keys = ["p1", "p1", "p2"]
    return [make_problem(key) for key in keys], [make_completion(f"text {i}", keys[i], i) for i in range(3)]


def test_total_is_the_weighted_sum_of_the_scored_parts(batch: tuple[list[Problem], list[Completion]]) -> None:
    rewards = [Fixed([1.0, 0.0, Unscored("slow")], "a", 2.0), Fixed([0.5, np.float32(0.25), True], "b", -1.0)]
    scores = score(*batch, rewards)
    assert [row.total for row in scores] == [1.5, -0.25, -1.0]  # 2 - 0.5; 0 - 0.25; (missing) - 1
    assert scores[2].parts == {"a": None, "b": 1.0}
    assert scores[2].unscored == {"a": "slow"}
    assert scores[0].unscored == {}


def test_all_parts_missing_gives_total_zero(batch: tuple[list[Problem], list[Completion]]) -> None:
    scores = score(*batch, [Fixed([Unscored("off")] * 3)])
    assert [row.total for row in scores] == [0.0] * 3


def test_no_completions_give_no_scores() -> None:
    assert score([], [], [Fixed([1.0])]) == []


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None, "high", [1.0]])
def test_value_that_is_no_score_stops(value: Any, batch: tuple[list[Problem], list[Completion]]) -> None:
    with pytest.raises(RewardError, match="reward 'fixed' on problem p2, text 'text 2', returned"):
        score(*batch, [Fixed([0.0, 0.0, value])])


def test_wrong_count_stops(batch: tuple[list[Problem], list[Completion]]) -> None:
    with pytest.raises(RewardError, match=r"reward 'fixed' on problem p1, text 'text 0'.*: 2 values for 3 completions"):
        score(*batch, [Fixed([0.0, 0.0])])


def test_exception_stops_and_names_the_text(batch: tuple[list[Problem], list[Completion]]) -> None:
    with pytest.raises(RewardError, match="reward 'broken' on problem p1, text 'text 1', raised KeyError") as caught:
        score(*batch, [RaisesOn("text 1")])
    assert isinstance(caught.value.__cause__, KeyError)


def test_misaligned_problems_are_refused(batch: tuple[list[Problem], list[Completion]]) -> None:
    problems, completions = batch
    with pytest.raises(ValueError, match="2 problems and 3 completions"):
        score(problems[:2], completions, [])


def test_unscored_share_is_bounded() -> None:
    scores = [Score(parts={"judge": None}, unscored={"judge": "timeout after 5 s"}, total=0.0)]
    scores += [Score(parts={"judge": 1.0}, total=1.0)] * 3
    check_unscored(scores, 0.25)
    with pytest.raises(RewardError, match=r"'judge' could not score 1 of 4 completions.*\{'timeout after 5 s': 1\}"):
        check_unscored(scores, 0.2)
    check_unscored([], 0.0)


def test_built_rewards_are_those_of_the_configuration(make_problem: MakeProblem, make_completion: Make) -> None:
    configs: list[RewardConfig] = [
        OutcomeRewardConfig(name="correct", weight=1.0),
        FormatRewardConfig(name="form", pattern="=", weight=0.2),
        LengthRewardConfig(name="brief", target=2, limit=12, weight=0.5),
        ModelRewardConfig(name="quality", model="absent"),
    ]
    with build_rewards(configs, {}) as rewards:
        assert [reward.name for reward in rewards] == ["correct", "form", "brief"]  # there is no model of that name
        only = score([make_problem()], [make_completion("2+3=5", num_tokens=7)], rewards)[0]
    assert only.parts == {"correct": 1.0, "form": 1.0, "brief": 0.5}
    assert only.total == pytest.approx(1.0 + 0.2 + 0.25)


@given(st.lists(st.one_of(st.none(), st.floats(-10, 10)), min_size=1, max_size=5), st.data())
def test_total_ignores_what_is_missing(values: list[float | None], data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.floats(-2, 2), min_size=len(values), max_size=len(values)))
    problem = Problem(key="p", prompt="q", answer="a", source="s", split="train")
    completion = Completion(
        problem_key="p", index=0, prompt_ids=[], token_ids=[], text="t", finish_reason="stop", logprobs=[], policy_id="i",
        step=0, seed=0,
    )  # fmt: skip
    rewards = [
        Fixed([Unscored("none") if value is None else value], f"r{i}", weight)
        for i, (value, weight) in enumerate(zip(values, weights, strict=True))
    ]
    total = score([problem], [completion], rewards)[0].total
    assert total == pytest.approx(sum(w * v for v, w in zip(values, weights, strict=True) if v is not None))


@dataclass
class Remote(WorksElsewhere):
    """A reward marked WorksElsewhere that signals its first call and records the texts."""

    name: str = "remote"
    weight: float = 1.0
    calls: list[list[str]] = field(default_factory=list)
    asked: threading.Event = field(default_factory=threading.Event)

    def __call__(self, problems: Sequence[Problem], completions: Sequence[Completion]) -> Sequence[Value]:
        self.calls.append([completion.text for completion in completions])
        self.asked.set()
        return [float(completion.text[-1]) for completion in completions]


def test_what_works_elsewhere_begins_with_the_first_group_that_is_written_and_scores_the_same(
    batch: tuple[list[Problem], list[Completion]],
) -> None:
    problems, completions = batch
    remote, here = Remote(), Fixed([3.0, 4.0, 5.0], "here")
    with Scoring([remote, here]) as scoring:
        scoring.begin(1, problems[2], completions[2:])  # the second group is written first
        assert remote.asked.wait(timeout=10)  # before the batch is whole
        scoring.begin(0, problems[0], completions[:2])
        found = scoring.finish(problems, completions)
    assert [row.parts for row in found] == [{"remote": float(i), "here": 3.0 + i} for i in range(3)]
    assert found == score(*batch, [Remote(), here])
    assert sorted(remote.calls) == [["text 0", "text 1"], ["text 2"]]


def test_an_error_of_what_works_elsewhere_is_raised_when_the_batch_is_finished(
    batch: tuple[list[Problem], list[Completion]],
) -> None:
    class Broken(Remote):
        def __call__(self, problems: Sequence[Problem], completions: Sequence[Completion]) -> Sequence[Value]:
            raise KeyError("no such column")

    problems, completions = batch
    with Scoring([Broken()]) as scoring:
        scoring.begin(0, problems[0], completions[:2])
        scoring.begin(1, problems[2], completions[2:])
        with pytest.raises(RewardError, match="'remote' on problem p1, text 'text 0', raised KeyError"):
            scoring.finish(problems, completions)


# ---- rewards of some sources ----------------------------------------------------------------------------------------


@dataclass
class OfSources(Fixed):
    """1 for each completion of its sources; keeps the sources that it was asked about."""

    values: Any = None
    sources: tuple[str, ...] | None = None
    asked: list[str] = field(default_factory=list)

    def __call__(self, problems: Sequence[Problem], completions: Sequence[Completion]) -> Sequence[Value]:
        self.asked += [problem.source for problem in problems]
        return [Unscored("slow") if completion.text == "late" else 1.0 for completion in completions]


class RemoteOfSources(OfSources, WorksElsewhere):
    pass


@pytest.mark.parametrize("kind", [OfSources, RemoteOfSources])
def test_a_reward_is_not_asked_about_other_sources_and_is_no_part_of_their_scores(
    kind: type[OfSources], make_problem: MakeProblem, make_completion: Make
) -> None:
    problems = [make_problem("a", source="math"), make_problem("b", source="code")]
    groups = [[make_completion(text, problem.key, i) for i, text in enumerate(["x", "late"])] for problem in problems]
    math, both = kind(name="math", sources=("math",), weight=2.0), kind(name="both", weight=3.0)
    with Scoring([math, both]) as scoring:
        for i, (problem, group) in enumerate(zip(problems, groups, strict=True)):
            scoring.begin(i, problem, group)
        scores = scoring.finish([problem for problem in problems for _ in range(2)], [*groups[0], *groups[1]])
    assert math.asked == ["math", "math"]
    assert [row.parts for row in scores] == [
        {"math": 1.0, "both": 1.0}, {"math": None, "both": None}, {"both": 1.0}, {"both": None},
    ]  # fmt: skip
    assert [row.total for row in scores] == [5.0, 0.0, 3.0, 0.0]
    assert [set(row.unscored) for row in scores] == [set(), {"math", "both"}, set(), {"both"}]


def test_unscored_shares_are_of_the_completions_that_a_reward_applies_to() -> None:
    late = Score(parts={"all": 1.0, "some": None}, unscored={"some": "timeout"}, total=1.0)
    scores = [late, Score(parts={"all": 1.0, "some": 1.0}, total=2.0), *[Score(parts={"all": 1.0}, total=1.0)] * 6]
    check_unscored(scores, 0.5)
    with pytest.raises(
        RewardError, match=r"'some' could not score 1 of 2 completions \(share 0.500, max_unscored_share=0.4\)"
    ):
        check_unscored(scores, 0.4)


def test_rewards_are_built_with_the_sources_of_the_configuration(
    make_problem: MakeProblem, make_completion: Make
) -> None:
    configs: list[RewardConfig] = [
        OutcomeRewardConfig(name="right", sources=["math"]),
        LengthRewardConfig(name="brief", target=4, limit=8, sources=["style"]),
        FormatRewardConfig(name="marked", pattern="x"),
    ]
    problems = [make_problem("a", source="math"), make_problem("b", source="style"), make_problem("c", source="else")]
    with build_rewards(configs, {}) as rewards:
        scores = score(problems, [make_completion("5", problem.key) for problem in problems], rewards)
    assert [row.parts for row in scores] == [
        {"right": 1.0, "marked": 0.0},
        {"brief": 1.0, "marked": 0.0},
        {"marked": 0.0},
    ]


@dataclass
class Joint(WorksTogether):
    """A reward that ranks compute together: it scores the length, and counts its calls."""

    name: str = "joint"
    weight: float = 1.0
    sources: Sequence[str] | None = None
    breaks: bool = False
    calls: list[int] = field(default_factory=list)
    """number of completions in each call"""

    def __call__(self, problems: Sequence[Problem], completions: Sequence[Completion]) -> Sequence[Value]:
        self.calls.append(len(completions))
        if self.breaks:
            raise RuntimeError("out of memory")
        return [float(len(completion.text)) for completion in completions]


def test_a_reward_of_all_ranks_is_called_once_also_by_a_rank_without_a_completion_for_it(
    batch: tuple[list[Problem], list[Completion]],
) -> None:
    """Otherwise the other ranks would wait for it for ever."""
    alone, of_others, checker = Joint(), Joint("other", sources=["elsewhere"]), Joint()
    steps = ShardedProcessReward(ProcessRewardConfig(name="steps", checked_by="joint", before="text"), checker)
    rewards = [alone, of_others, steps]
    assert [row.parts for row in score(*batch, rewards)] == [{"joint": 6.0, "steps": 0.0}] * 3
    assert score([], [], rewards) == []
    assert alone.calls == [3, 0]
    assert of_others.calls == [0, 0]
    assert checker.calls == [0, 0]  # the texts have no step


def test_another_reward_is_not_called_without_a_completion(batch: tuple[list[Problem], list[Completion]]) -> None:
    would_give_one = Fixed([1.0])
    steps = ProcessReward(ProcessRewardConfig(name="steps", checked_by="fixed", before="text"), would_give_one)
    assert score([], [], [would_give_one]) == []
    assert [row.parts for row in score(*batch, [steps])] == [{"steps": 0.0}] * 3


def test_a_reward_of_all_ranks_is_not_tried_again_by_one_of_them_when_it_fails(
    batch: tuple[list[Problem], list[Completion]],
) -> None:
    broken = Joint(breaks=True)
    with pytest.raises(
        RewardError, match=r"'joint' on problem p1.*\(the first of the batch\) raised RuntimeError: out of"
    ):
        score(*batch, [broken])
    with pytest.raises(RewardError, match=r"'joint' without a completion raised RuntimeError: out of memory"):
        score([], [], [broken])
    assert broken.calls == [3, 0]
