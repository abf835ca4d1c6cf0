"""Pass rates that are predicted from what is known of a problem before it is asked."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.records import Problem
from grpo_train.problems.picking.pass_rates import Measured, expected_variance, facts, predict
from tests.grpo_train.conftest import make_problem


def problem(question: str, answer: str | None, difficulty: float | None = None) -> Problem:
    return make_problem("p").model_copy(update={"prompt": question, "answer": answer, "difficulty": difficulty})


def test_facts_by_hand() -> None:
    found = facts(problem("What is 12 + 0.5?", "-12.5", difficulty=0.25))
    assert found == pytest.approx([0.25, *map(math.log1p, [17, 4, 2, 12.5, 12, 0.5]), 0, 0])
    assert facts(problem("Why?", None)) == pytest.approx([0, math.log1p(4), 0, 0, 0, 0, 0, 0, 0])
    assert facts(problem("gcd of 12 and 4?", "4"))[-2:] == [0, 1]
    assert facts(problem("lcm of 12 and 4?", "12"))[-2:] == [1, 0]


@settings(deadline=None)
@given(st.text(max_size=40), st.none() | st.text(max_size=20) | st.from_regex(r"-?\d{1,400}", fullmatch=True))
def test_facts_are_finite_whatever_stands_there(question: str, answer: str | None) -> None:
    assert all(math.isfinite(fact) for fact in facts(problem(question, answer)))


def test_nothing_measured_predicts_one_half() -> None:
    assert predict(["a", "b"], np.zeros((2, 3)), []).tolist() == [0.5, 0.5]


def drawn(rng: np.random.Generator, num: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    """(sources, facts, pass rates) of problems: source a gets harder with the first fact, b easier, and the second means nothing."""
    sources = ["a" if i % 2 else "b" for i in range(num)]
    values = rng.normal(size=(num, 2))
    slopes = np.where([source == "a" for source in sources], -3.0, 3.0)
    return sources, values, 1 / (1 + np.exp(-(slopes * values[:, 0] + 0.5)))


def test_pass_rates_of_problems_that_were_never_asked_are_found_from_others() -> None:
    """Each measured group has 8 responses. The rates themselves spread by 0.36."""
    rng = np.random.default_rng(0)
    sources, values, rates = drawn(rng, 400)
    groups = rng.binomial(8, rates) / 8
    measured = [Measured(source, row.tolist(), rate) for source, row, rate in zip(sources, values, groups, strict=True)]
    wanted, new_values, true = drawn(rng, 1000)
    found = predict(wanted, new_values, measured)
    assert np.sqrt(np.mean((found - true) ** 2)) < 0.05
    assert found == pytest.approx(predict(wanted, new_values, list(reversed(measured))))


def test_an_unknown_source_is_predicted_from_all_and_a_constant_fact_says_nothing() -> None:
    measured = [Measured("a", [1.0, 7.0], 1.0), Measured("a", [0.0, 7.0], 0.0)] * 20
    found = predict(["new", "new", "a"], np.array([[1.0, 7.0], [0.0, -50.0], [1.0, 7.0]]), measured)
    assert found[0] > 0.8 > 0.2 > found[1]
    assert found[2] > found[0]


def test_all_right_and_all_wrong_problems_keep_a_prediction_inside() -> None:
    for rate in (0.0, 1.0):
        found = predict(["a"], np.array([[3.0]]), [Measured("a", [float(i)], rate) for i in range(50)])
        assert 0 < found[0] < 1
        assert found[0] == pytest.approx(rate, abs=0.1)


def test_expected_variance_is_that_of_the_beta_distribution() -> None:
    # unseen: Beta(2 x 0.5, 2 x 0.5), the uniform one: 1/6. Seen: Beta(1 + 4 x 0.25, 1 + 4 x 0.75): 2 x 4 / (6 x 7)
    found = expected_variance(np.array([0.5, 0.5, 0.1]), np.array([np.nan, 0.25, np.nan]))
    assert found == pytest.approx([1 / 6, 8 / 42, 0.2 * 1.8 / (2 * 3)])
