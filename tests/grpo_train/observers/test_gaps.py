import numpy as np
import pytest

from grpo_train.observers.gaps import Gaps

NAMES = ["correct", "quality"]


def measured(gaps: Gaps, correct: list[float], quality: list[float], applies: list[bool] | None = None):
    """The gaps of a step in which `correct` decides; `applies` says where both it and `quality` apply."""
    parts = np.array([correct, quality], dtype=np.float64).T
    both = np.ones(len(parts), dtype=np.bool_) if applies is None else np.array(applies)
    return gaps.measure(parts, NAMES, parts[:, 0], np.stack([both, both], axis=1))


def test_the_gap_is_the_models_gain_less_the_checkers_each_in_its_own_deviations():
    gaps = Gaps(["quality"])
    assert measured(gaps, [0, 1, 0, 1], [-2, 2, -2, 2]) == {}  # means 0.5 and 0, deviations 0.5 and 2
    assert measured(gaps, [1, 1, 1, 0], [1, 1, 1, 1]) == {"gap/quality": pytest.approx(1 / 2 - 0.25 / 0.5)}
    assert measured(gaps, [0, 0, 0, 0], [3, 3, 3, 3]) == {"gap/quality": pytest.approx(3 / 2 + 0.5 / 0.5)}


def test_it_counts_from_the_first_step_in_which_both_vary():
    gaps = Gaps(["quality"])
    assert measured(gaps, [0, 0], [-1, 1]) == {}
    assert measured(gaps, [0, 1], [4, 6]) == {}
    assert measured(gaps, [0, 1], [5, 6]) == {"gap/quality": pytest.approx(0.5)}


def test_missing_parts_are_left_out_and_a_step_without_any_has_no_gap():
    gaps = Gaps(["quality"])
    measured(gaps, [0, 1, 1], [-1, 1, np.nan])
    assert measured(gaps, [0, 1, 1], [np.nan, 1, np.nan]) == {"gap/quality": pytest.approx(1.0 - 0.0)}
    assert measured(gaps, [0, 1], [np.nan, np.nan]) == {}


def test_without_the_checker_there_is_no_gap():
    gaps = Gaps(["quality"])
    for _ in range(2):
        assert measured(gaps, [0, 1], [0, 1], applies=[False, False]) == {}


def test_its_state_is_carried_through_a_checkpoint():
    whole, before = Gaps(["quality"]), Gaps(["quality"])
    for each in (whole, before):
        measured(each, [0, 1], [-1, 1])
    after = Gaps(["quality"])
    after.restore({"first": {m: {n: list(v) for n, v in b.items()} for m, b in before.state()["first"].items()}})
    assert measured(after, [1, 1], [1, 1]) == measured(whole, [1, 1], [1, 1]) != {}


def test_the_state_of_an_earlier_version_has_the_checkers_name():
    before, after = Gaps(["quality"]), Gaps(["quality"])
    measured(before, [0, 1], [-1, 1])
    after.restore({"first": {"quality": {"quality": [0.0, 1.0], "correct": [0.5, 0.5]}}})
    assert after.state() == before.state()


def test_only_responses_that_both_apply_to_count():
    gaps = Gaps(["quality"])
    both = [True, True, False, False]
    assert measured(gaps, [0, 1, 9, np.nan], [-1, 1, np.nan, 7], both) == {}  # means 0.5 and 0, deviations 0.5 and 1
    assert measured(gaps, [1, 1, 0, np.nan], [1, 1, np.nan, -9], both) == {
        "gap/quality": pytest.approx(1 / 1 - 0.5 / 0.5)
    }
