"""Which members of a comparison are worked on, and how long they are said to take."""

from __future__ import annotations

import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from configs.errors import StageStopped
from configs.schema.config import Config
from flows.comparing import flow, planning
from tests.tasks.comparing.made_up import comparison

TODAY = datetime.date(2026, 2, 28)


def told(monkeypatch: pytest.MonkeyPatch, took: dict[str, float]) -> str:
    """What is said where the members in `took` are finished after so many seconds."""
    monkeypatch.setattr(flow, "is_finished", lambda root, config: config.run_name in took)
    monkeypatch.setattr(flow, "run_time", lambda folder: SimpleNamespace(whole=took[folder.name]))
    return flow.progress(Path(), list(comparison().members()))


def test_before_the_first_is_finished_no_time_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        told(monkeypatch, {})
        == "comparison: 4 runs, 0 finished; how long the others take is told when the first one is"
    )


def test_others_take_as_long_as_those_of_their_method_or_as_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of grpo is left: 60 s, as the other took. Two of rloo: of 60 s, the mean of all. 180 s."""
    text = told(monkeypatch, {"made-up-grpo-s0": 60})
    assert text == "comparison: 4 runs, 1 finished; the others take about 3:00 by the time of these"


def test_a_method_that_takes_longer_is_counted_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """grpo took 60 s and rloo 100 s; one of each is left."""
    text = told(monkeypatch, {"made-up-grpo-s0": 60, "made-up-rloo-s1": 100})
    assert text == "comparison: 4 runs, 2 finished; the others take about 2:40 by the time of these"


def test_finished_members_are_left_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worked: list[str] = []
    finished = {"made-up-rloo-s0"}

    def align(config: Config) -> None:
        worked.append(config.run_name)
        finished.add(config.run_name)

    monkeypatch.setattr(flow, "align", align)
    for module in (flow, planning):
        monkeypatch.setattr(module, "is_finished", lambda root, config: config.run_name in finished)
    monkeypatch.setattr(flow, "run_time", lambda folder: SimpleNamespace(whole=1.0))
    flow.all_members(tmp_path, comparison())
    assert worked == ["made-up-grpo-s0", "made-up-grpo-s1", "made-up-rloo-s1"], "seed by seed"


def test_a_member_that_was_stopped_stops_the_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worked: list[str] = []

    def align(config: Config) -> None:
        worked.append(config.run_name)
        raise flow.CancelledRun("stopped before step 3 of 9")

    monkeypatch.setattr(flow, "align", align)
    with pytest.raises(StageStopped, match="stopped before step 3 of 9"):
        flow.all_members(tmp_path, comparison())
    assert worked == ["made-up-grpo-s0"]


def test_seeds_after_those_that_choose_the_rate_run_at_the_best_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worked: list[str] = []
    monkeypatch.setattr(flow, "align", lambda config: worked.append(config.run_name))
    for module in (flow, planning):
        monkeypatch.setattr(module, "is_finished", lambda root, config: config.run_name in worked)
    monkeypatch.setattr(flow, "run_time", lambda folder: SimpleNamespace(whole=1.0))
    monkeypatch.setattr(planning, "best_factors", lambda root, given: {"grpo": 3.0, "rloo": 1.0})
    given = comparison(learning_rate_factors=[1, 3], num_rate_seeds=1)
    assert [member.name for member in planning.planned(tmp_path, given, TODAY)[4:]] == [
        "made-up-grpo-s1",
        "made-up-rloo-s1",
    ], "not known yet"
    flow.all_members(tmp_path, given)
    assert worked == [
        "made-up-grpo-s0",
        "made-up-grpo-lr3-s0",
        "made-up-rloo-s0",
        "made-up-rloo-lr3-s0",
        "made-up-grpo-lr3-s1",
        "made-up-rloo-s1",
    ]
