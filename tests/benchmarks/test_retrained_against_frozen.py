"""The experiment's tables and intervals from the summaries of its runs."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.retrained_against_frozen import ARMS, interval, table, values


def summary(accuracies: list[float | None]) -> dict[str, Any]:
    rounds = [{} if value is None else {"test/greedy_accuracy": {"estimate": value}} for value in accuracies]
    return {"rounds": [{"evaluation": evaluation} for evaluation in rounds]}


def test_interval_is_students_over_seeds() -> None:
    # mean 0.2, standard deviation 0.1, three seeds: 4.303 * 0.1 / sqrt(3)
    mean, half = interval([0.1, 0.2, 0.3])
    assert (mean, half) == (pytest.approx(0.2), pytest.approx(0.2484, abs=1e-4))


def test_table_has_a_row_a_round_and_a_dash_where_nothing_was_measured() -> None:
    found = {arm: [summary([None, 0.1]), summary([None, 0.3])] for arm in ARMS}
    assert values(found["frozen"], "test/greedy_accuracy", 1) == [0.1, 0.3]
    lines = table(found, "test/greedy_accuracy").splitlines()
    assert lines[2] == "| 0 | - | - | - | - |"
    assert lines[3].startswith("| 1 | 0.100, 0.300 | 0.200 \u00b1 ")
