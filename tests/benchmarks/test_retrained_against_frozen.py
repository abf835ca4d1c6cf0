"""The experiment's tables and intervals from the summaries of its runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import retrained_against_frozen
from benchmarks.retrained_against_frozen import (
    ARMS,
    CHECKER,
    FIRST,
    Curve,
    curve,
    gains,
    interval,
    table,
    values,
    workspace,
)
from configs.disk.files import Journal


def summary(accuracies: list[float | None]) -> dict[str, Any]:
    rounds = [{} if value is None else {"test/greedy_accuracy": {"estimate": value}} for value in accuracies]
    return {"rounds": [{"evaluation": evaluation} for evaluation in rounds]}


def test_interval_is_students_over_seeds() -> None:
    # mean 0.2, standard deviation 0.1, three seeds: 4.303 * 0.1 / sqrt(3)
    mean, half = interval([0.1, 0.2, 0.3])
    assert (mean, half) == (pytest.approx(0.2), pytest.approx(0.2484, abs=1e-4))


def test_table_has_a_row_for_each_round_that_was_measured() -> None:
    found = {FIRST: [summary([None, 0.1]), summary([None, 0.3])]}
    assert values(found[FIRST], "test/greedy_accuracy", 1) == [0.1, 0.3]
    assert table(found, "test/greedy_accuracy").splitlines()[2:] == [
        f"| {FIRST} | 1 | 0.100, 0.300 | 0.200 \u00b1 1.271 |"
    ]


def test_gains_are_paired_by_seed() -> None:
    """Of the last round; the arms in their order end 0.1 apart in both seeds."""
    found = {
        arm: [summary([0.0, 0.5, 0.9 - i / 10]), summary([0.0, 0.5, 0.8 - i / 10])]
        for i, arm in enumerate((*ARMS, CHECKER))
    }
    lines = gains(found).splitlines()[2:]
    assert lines[0] == "| retrained - frozen, from the champion | +0.100, +0.100 | +0.100 \u00b1 0.000 |"
    assert lines[1].endswith("from the given policy | +0.100, +0.100 | +0.100 \u00b1 0.000 |")
    assert lines[2] == "| given policy - champion, retrained | -0.200, -0.200 | -0.200 \u00b1 0.000 |"
    assert lines[4].startswith(f"| last round - round 1, {FIRST} | +0.400, +0.300 | +0.350")


def test_a_curve_is_of_windows_of_steps_and_of_the_distance_of_whole_responses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """KL is measured in each third step; a window without one would have no distance."""
    monkeypatch.setattr(retrained_against_frozen, "WORKSPACE", tmp_path)
    for round_name, kl in {"round_001": 0.25, "round_002": 1.0}.items():
        folder = workspace(FIRST, 0) / "runs" / "run" / round_name / "policy"
        folder.mkdir(parents=True)
        journal = Journal(folder / "journal.jsonl")
        for step in range(1, 33):
            values = {
                "objective/correct/mean": float(step > 16),
                "objective/proxy/mean": 2.0,
                "response/length_mean": 4.0,
            }
            journal.write(step, values | ({"policy/kl_initial": kl} if step % 3 == 0 else {}))
    (workspace(FIRST, 0) / "runs" / "run" / "round_000" / "policy").mkdir(parents=True)  # the given policy
    assert curve(FIRST, 0) == Curve(distance=[1.0, 1.0, 2.0, 2.0], correct=[0.0, 1.0, 0.0, 1.0], proxy=[2.0] * 4)
