"""What observers see of a step."""

from dataclasses import replace

import numpy as np
import pytest

from configs.records import Completion, Score
from grpo_train.groups import Groups, applies_matrix, parts_matrix
from grpo_train.observers.metrics import step_metrics
from grpo_train.observers.observer import StepRecord
from grpo_train.rollouts import rollout_rows
from grpo_train.updating.advantages import group_advantages
from reward_training.transformer.positions import Positions
from tests.grpo_train.conftest import make_problem


def groups(verdicts: dict[str, list[float | None]], old: tuple[str, ...] = ()) -> Groups:
    """A group for each question; `old` names `question/index` of responses that are from the cache."""
    problems = [make_problem(question) for question in verdicts]
    completions, scores, is_old = [], [], []
    for problem, (question, values) in zip(problems, verdicts.items(), strict=True):
        for index, value in enumerate(values):
            completions.append(
                Completion(
                    problem_key=problem.key, index=index, prompt_ids=[1], token_ids=[2, 3], text=f"{index}",
                    finish_reason="stop", logprobs=[-1.0, -0.5], policy_id="x", step=1, seed=0,
                )
            )  # fmt: skip
            scores.append(Score(parts={"correct": value, "brief": 0.5}, total=0.0))
            is_old.append(f"{question}/{index}" in old)
    return Groups(problems, completions, scores, is_old)


def record(batch: Groups, refused: Groups, checker: str = "correct") -> StepRecord:
    def advantages(some: Groups):
        parts = np.array([[0.0 if s.parts["correct"] is None else s.parts["correct"], 0.5] for s in some.scores])
        return group_advantages(parts.reshape(-1, 2), np.array([1.0, 0.0]), 2)

    parts = np.array([[np.nan if s.parts["correct"] is None else s.parts["correct"], 0.5] for s in batch.scores])
    return StepRecord(
        step=3, objectives=["correct", "brief"], checker_of=lambda source: checker,
        batch=batch, parts=parts, applies=np.ones_like(parts, dtype=np.bool_),
        advantages=advantages(batch), refused=refused, refused_advantages=advantages(refused), num_refills=2,
        positions=Positions(10, 3), metrics={},
    )  # fmt: skip


def test_pass_rates_count_what_was_sampled_and_scored_refused_groups_too() -> None:
    """An unscored response counted as wrong: c had 0.5, and e, of which nothing is known, 0.0."""
    batch = groups({"a": [1.0, 0.0], "b": [1.0, 1.0], "c": [None, 1.0], "e": [None, None]}, old=("b/1",))
    seen = record(batch, groups({"d": [0.0, 0.5]}))
    rates = {make_problem(question).key: rate for question, rate in {"a": 0.5, "b": 1.0, "c": 1.0, "d": 0.0}.items()}
    assert seen.pass_rates == rates


def test_shares_of_groups_all_right_and_all_wrong_are_of_what_was_scored() -> None:
    """An unscored response counted as wrong: a was not all right, and d was all wrong."""
    batch = groups({"a": [None, 1.0], "b": [0.0, None], "c": [1.0, 0.0], "d": [None, None]})
    metrics = step_metrics(record(batch, Groups()), with_refills=False)
    assert metrics["groups/all_right_share"] == pytest.approx(1 / 3)  # a of a, b and c
    assert metrics["groups/all_wrong_share"] == pytest.approx(1 / 3)  # b
    unknown = step_metrics(record(groups({"d": [None, None]}), Groups()), with_refills=False)
    assert "groups/all_right_share" not in unknown


def test_a_checker_that_is_no_objective_says_nothing() -> None:
    seen = record(groups({"a": [1.0, 0.0]}), Groups(), checker="elsewhere")
    assert (seen.right, seen.pass_rates) == ([None, None], {})
    assert "groups/all_right_share" not in step_metrics(seen, with_refills=False)


def test_responses_at_fault_are_counted_for_their_objective_among_those_sampled() -> None:
    batch = groups({"a": [1.0, 0.0], "b": [0.0, 0.0]}, old=("b/1",))
    scores = [
        s.model_copy(update={"faults": {"correct": "slow"}}) if s.parts["correct"] == 0 else s for s in batch.scores
    ]
    seen = record(replace(batch, scores=scores), Groups())
    metrics = step_metrics(seen, with_refills=False)
    assert metrics["objective/correct/at_fault_share"] == 2 / 3  # a/1 and b/0 of a/0, a/1 and b/0
    assert metrics["objective/brief/at_fault_share"] == 0.0
    rows = rollout_rows(3, seen.batch, seen.advantages)
    assert [row["faults"] for row in rows] == [{}, *[{"correct": "slow"}] * 3]


def test_metrics_of_a_step_leave_cached_responses_out_where_they_say_what_the_policy_does_now() -> None:
    seen = record(groups({"a": [1.0, 0.0], "b": [1.0, 1.0]}, old=("a/1",)), groups({"d": [0.0, 0.0]}))
    metrics = step_metrics(seen, with_refills=True)
    assert metrics["objective/correct/mean"] == 1.0  # a/0, b/0 and b/1
    assert metrics["groups/all_right_share"] == 1.0
    assert metrics["groups/dead_share"] == 0.5  # b
    assert metrics["policy/entropy"] == pytest.approx(0.75)  # (1.0 + 0.5) / 2
    assert (metrics["groups/refused"], metrics["groups/refills"], seen.num_sampled_tokens) == (1.0, 2.0, 10)


def test_an_objective_is_measured_on_the_responses_that_it_applies_to() -> None:
    batch = groups({"a": [1.0, None], "b": [0.0, 0.0]})
    style = [Score(parts={"brief": 0.5}, total=0.0), Score(parts={"brief": None}, unscored={"brief": "x"}, total=0.0)]
    batch = replace(batch, scores=[*batch.scores[:2], *style])
    parts, applies = (
        parts_matrix(batch.scores, ["correct", "brief"]),
        applies_matrix(batch.scores, ["correct", "brief"]),
    )
    seen = replace(
        record(groups({"a": [1.0, None], "b": [0.0, 0.0]}), Groups()), batch=batch, parts=parts, applies=applies
    )
    metrics = step_metrics(seen, with_refills=False)
    assert metrics["objective/correct/unscored_share"] == 0.5  # a/1 of a/0 and a/1
    assert metrics["objective/brief/unscored_share"] == 0.25
    assert metrics["objective/correct/at_fault_share"] == 0.0
    assert metrics["objective/correct/mean"] == 1.0
    assert seen.right == [True, None, None, None]
    assert (metrics["groups/all_right_share"], metrics["groups/all_wrong_share"]) == (1.0, 0.0)  # of a/0
    assert seen.pass_rates == {make_problem("a").key: 1.0}
    checked, has_checker = seen.checked
    assert np.array_equal(checked, [1.0, np.nan, np.nan, np.nan], equal_nan=True)
    assert has_checker.tolist() == [True, True, False, False]


def test_an_objective_that_applies_to_nothing_of_a_step_has_no_shares_of_failures() -> None:
    batch = groups({"a": [1.0, 0.0]})
    batch = replace(batch, scores=[Score(parts={"brief": 0.5}, total=0.0)] * 2)
    parts, applies = (
        parts_matrix(batch.scores, ["correct", "brief"]),
        applies_matrix(batch.scores, ["correct", "brief"]),
    )
    metrics = step_metrics(
        replace(record(groups({"a": [1.0, 0.0]}), Groups()), batch=batch, parts=parts, applies=applies),
        with_refills=False,
    )
    assert (
        not {"objective/correct/mean", "objective/correct/unscored_share", "objective/correct/at_fault_share"}
        & metrics.keys()
    )
    assert "groups/all_right_share" not in metrics
