"""Stored benchmark results, and the training time to a target accuracy."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import results, time_to_accuracy
from benchmarks.results import kept, table
from benchmarks.time_to_accuracy import EXAMINED_EVERY, MAX_STEPS, TARGET, reached


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
