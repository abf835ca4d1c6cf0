"""Stored benchmark results, and the training time to a target accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import costs, results, time_to_accuracy
from benchmarks.results import kept, table
from benchmarks.time_to_accuracy import EXAMINED_EVERY, MAX_STEPS, TARGET, accuracy_after, gain, ratio, reached


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path)


def test_a_case_is_measured_once_and_says_on_what() -> None:
    assert kept("costs/8", lambda: {"seconds": 1.5})["seconds"] == 1.5
    again = kept("costs/8", lambda: pytest.fail("measured again"))
    assert again["seconds"] == 1.5
    assert again["machine"]["cores"] >= 1


def test_a_case_that_was_broken_off_is_measured_again() -> None:
    def broken_off() -> dict[str, float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept("costs/8", broken_off)
    assert kept("costs/8", lambda: {"seconds": 2.0})["seconds"] == 2.0


def test_table_is_markdown() -> None:
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


class Student:
    """A fake system whose step takes 2 s and adds `rate` to the accuracy."""

    def __init__(self, rate: float) -> None:
        self.rate, self.steps = rate, 0

    def step(self) -> float:
        self.steps += 1
        return 2.0

    def accuracy(self) -> float:
        return self.rate * self.steps


def test_training_time_counts_until_the_target_is_seen() -> None:
    found = reached(Student(rate=TARGET / 7))  # type: ignore[arg-type]
    assert (found["steps"], found["seconds"]) == (9, 18.0)  # reached at 7, seen at 9
    assert [seconds for seconds, _ in found["curve"]] == [0, 6, 12, 18]
    assert time_to_accuracy._told(found) == "18 s, 9 steps (2.0 s each)"


def test_a_target_that_is_not_reached_has_no_time() -> None:
    found = reached(Student(rate=0.0))  # type: ignore[arg-type]
    assert (found["steps"], found["seconds"], len(found["curve"])) == (MAX_STEPS, None, 1 + MAX_STEPS // EXAMINED_EVERY)
    assert time_to_accuracy._told(found) == f"not in {MAX_STEPS} steps"


def test_the_ratio_over_seeds_is_a_geometric_mean_of_those_in_which_both_arrive() -> None:
    slower = [{"seconds": seconds} for seconds in (20.0, 80.0, None)]
    faster = [{"seconds": seconds} for seconds in (10.0, 10.0, 10.0)]
    found = ratio(slower, faster)
    assert found is not None
    assert (found.estimate, found.n) == (pytest.approx(4.0), 2)  # of 2 and 8
    assert found.low * found.high == pytest.approx(16.0)
    assert ratio(slower[1:], faster[1:]) is None


def test_the_summary_tells_what_is_not_known() -> None:
    start = [(0.0, 0.1)]
    never: dict[str, Any] = {"seconds": None, "steps": MAX_STEPS, "curve": start}
    text = time_to_accuracy.summary({"regroup": [never], "trl": [{"seconds": 30.0, "steps": 3, "curve": start}]})
    assert "| 0 | not in 30 steps | 30 s, 3 steps (10.0 s each) |" in text
    assert "- TRL over Regroup: unknown" in text
    assert "- Regroup against TRL after 30 training seconds: unknown" in text


def test_accuracy_at_equal_seconds_lies_between_evaluations_and_stays_where_training_ended() -> None:
    slow: list[dict[str, Any]] = [{"curve": [(0.0, 0.1), (40.0, 0.3)]}, {"curve": [(0.0, 0.1), (60.0, 0.3)]}]
    fast: list[dict[str, Any]] = [{"curve": [(0.0, 0.1), (20.0, 0.4)]}, {"curve": [(0.0, 0.1), (30.0, 0.4)]}]
    assert [accuracy_after(result, 30.0) for result in (*slow, *fast)] == pytest.approx([0.25, 0.2, 0.4, 0.4])
    found = gain(slow, fast)
    assert found is not None
    assert (found.estimate, found.n) == (pytest.approx(0.175), 2)


def test_growth_is_told_and_what_only_one_system_ran() -> None:
    rows: list[dict[str, Any]] = [
        {"value": "4", "regroup": {"seconds": 2.0, "peak_mb": 1000.0}, "trl": {"seconds": 5.0, "peak_mb": 3000.0}},
        {"value": "64", "regroup": {"seconds": 30.0, "peak_mb": 1500.0}},
    ]
    assert costs.growth(costs.AXES[0], rows) == "group size 4 to 64: 15.0 times the seconds, 1.50 times the memory"
    assert [costs._told(row) for row in rows] == [
        ["4", "2.0", "5.0", "2.5", "1,000", "3,000"],
        ["64", "30.0", "-", "-", "1,500", "-"],
    ]
