import numpy as np
import pytest

from grpo_train.observers.gaps import Gaps

NAMES = ["correct", "quality"]


def parts(correct: list[float], quality: list[float]) -> np.ndarray:
    return np.array([correct, quality], dtype=np.float64).T


def test_the_gap_is_the_models_gain_less_the_checkers_each_in_its_own_deviations():
    gaps = Gaps(["quality"], "correct")
    assert gaps.measure(parts([0, 1, 0, 1], [-2, 2, -2, 2]), NAMES) == {}  # means 0.5 and 0, deviations 0.5 and 2
    assert gaps.measure(parts([1, 1, 1, 0], [1, 1, 1, 1]), NAMES) == {"gap/quality": pytest.approx(1 / 2 - 0.25 / 0.5)}
    assert gaps.measure(parts([0, 0, 0, 0], [3, 3, 3, 3]), NAMES) == {"gap/quality": pytest.approx(3 / 2 + 0.5 / 0.5)}


def test_it_counts_from_the_first_step_in_which_both_vary():
    gaps = Gaps(["quality"], "correct")
    assert gaps.measure(parts([0, 0], [-1, 1]), NAMES) == {}
    assert gaps.measure(parts([0, 1], [4, 6]), NAMES) == {}
    assert gaps.measure(parts([0, 1], [5, 6]), NAMES) == {"gap/quality": pytest.approx(0.5)}


def test_missing_parts_are_left_out_and_a_step_without_any_has_no_gap():
    gaps = Gaps(["quality"], "correct")
    gaps.measure(parts([0, 1, 1], [-1, 1, np.nan]), NAMES)
    assert gaps.measure(parts([0, 1, 1], [np.nan, 1, np.nan]), NAMES) == {"gap/quality": pytest.approx(1.0 - 0.0)}
    assert gaps.measure(parts([0, 1], [np.nan, np.nan]), NAMES) == {}


def test_without_the_checker_there_is_no_gap():
    assert Gaps(["quality"], "tagged").measure(parts([0, 1], [0, 1]), NAMES) == {}


def test_its_state_is_carried_through_a_checkpoint():
    whole, before = Gaps(["quality"], "correct"), Gaps(["quality"], "correct")
    for each in (whole, before):
        each.measure(parts([0, 1], [-1, 1]), NAMES)
    after = Gaps(["quality"], "correct")
    after.restore({"first": {m: {n: list(v) for n, v in b.items()} for m, b in before.state()["first"].items()}})
    step = parts([1, 1], [1, 1])
    assert after.measure(step, NAMES) == whole.measure(step, NAMES) != {}
