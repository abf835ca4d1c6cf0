"""What is told of, on the files of a run: round 1 is promoted (4 -> 14 of 40 right on test), round 2 refused (12)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from configs.disk.files import write_jsonl
from configs.errors import WorkspaceBusy
from configs.records import Policy
from tasks.alerting.alerts import Alerts
from tasks.alerting.happenings import (
    tell_decision,
    tell_failed,
    tell_fall,
    tell_finished,
    tell_interrupted,
    tell_refused_model,
    tell_skipped,
    tell_watch_rules,
)
from tasks.alerting.outbox import Alert, Outbox
from tasks.runs.run_records import RunRecords, read_run_records
from tasks.runs.times import CallTime, killed_calls, note_call
from tests.tasks.showing.synthetic_run import write_run

POLICIES = [Policy(path="p", id=f"{number}" * 8, round=number) for number in range(3)]


@pytest.fixture
def records(tmp_path: Path) -> RunRecords:
    return read_run_records(write_run(tmp_path / "runs" / "made-up"))


@pytest.fixture
def alerts(tmp_path: Path) -> Alerts:
    return Alerts(tmp_path, [], run="made-up", uid="u")


def _told(root: Path) -> list[Alert]:
    return Outbox(root).alerts()


def test_a_decision_is_told_with_its_numbers(tmp_path: Path, alerts: Alerts, records: RunRecords) -> None:
    for index in (1, 2, 1):
        decision = records.rounds[index].decision
        assert decision is not None
        tell_decision(alerts, index, decision, champion=POLICIES[index - 1], challenger=POLICIES[index])
    promoted, refused = _told(tmp_path)
    assert (promoted.happening, promoted.round) == ("challenger.promoted", 1)
    assert (refused.happening, refused.round) == ("challenger.refused", 2)
    assert refused.text == (
        "run made-up, round 2: the challenger was refused; "
        "greedy_accuracy -0.031; rule better needs a lower bound over 0"
    )
    assert (refused.details["gain"], refused.details["n"], refused.details["policy_id"]) == (-0.03125, 64, "2" * 8)


def _rows(right: int) -> list[dict[str, object]]:
    return [{"split": "test", "problem_key": f"p{i}", "greedy_accuracy": float(i < right)} for i in range(40)]


@pytest.mark.parametrize(("right", "falls"), [(14, False), (13, False), (5, True), (0, True), (40, False)])
def test_accuracy_fell_where_the_paired_interval_is_under_zero(
    tmp_path: Path, alerts: Alerts, records: RunRecords, right: int, falls: bool
) -> None:
    """14 of 40 before; with 13 the interval of the difference reaches 0."""
    write_jsonl(records.rounds[2].folder / "evaluate" / "results.jsonl", _rows(right))
    for _ in range(2):
        tell_fall(alerts, records.config, records.rounds[1], records.rounds[2])
    assert [alert.happening for alert in _told(tmp_path)] == ["accuracy.fell"] * falls
    if falls:
        [alert] = _told(tmp_path)
        assert alert.details["estimate"] == pytest.approx((right - 14) / 40)
        assert alert.details["high"] < 0
        assert f"{(right - 14) / 40:+.3f} [" in alert.text
        assert "against the policy of round 1 on 40 problems" in alert.text


def test_nothing_fell_where_nothing_was_measured(tmp_path: Path, alerts: Alerts, records: RunRecords) -> None:
    write_jsonl(records.rounds[2].folder / "evaluate" / "results.jsonl", [])
    tell_fall(alerts, records.config, records.rounds[1], records.rounds[2])
    assert _told(tmp_path) == []


def test_a_refused_reward_model_is_told_with_what_comes_instead(
    tmp_path: Path, alerts: Alerts, records: RunRecords
) -> None:
    tell_refused_model(alerts, 2, "quality", records.rounds[2].reward_models["quality"], "the round goes on without it")
    [alert] = _told(tmp_path)
    assert alert.happening == "reward_model.refused"
    assert alert.text == (
        "run made-up, round 2: reward model quality was refused: accuracy 0.51 [0.42, 0.60] is not over 0.5; "
        "the round goes on without it"
    )


def test_each_watch_rule_is_told_of_once_a_round(tmp_path: Path, alerts: Alerts, records: RunRecords) -> None:
    for _ in range(2):
        for record in records.rounds:
            tell_watch_rules(alerts, records.config, record)
    [alert] = _told(tmp_path)
    assert (alert.happening, alert.round, alert.details["step"]) == ("watch.triggered", 2, 19)
    assert "policy/entropy is 0.276 at step 19" in alert.text


def test_a_failure_is_told_each_time_and_in_one_line_without_passwords(tmp_path: Path, alerts: Alerts) -> None:
    for _ in range(2):
        tell_failed(alerts, OSError("no answer from https://me:secret@store.example.org/x\nand more"))
    first, second = _told(tmp_path)
    assert first.text == "run made-up: failed: OSError: no answer from https://store.example.org/x"
    assert first.id != second.id


def test_a_killed_process_is_told_of_once_by_the_next_call(tmp_path: Path, alerts: Alerts) -> None:
    note_call(tmp_path, CallTime(call="stopped", whole=60, work=0))
    note_call(tmp_path, CallTime(call="stopped", whole=61, work=0, ended=True))
    note_call(tmp_path, CallTime(call="killed", whole=90, work=80))
    now = CallTime(call="now", whole=5, work=0)
    note_call(tmp_path, now)
    for _ in range(2):
        tell_interrupted(alerts, killed_calls(tmp_path, now))
    [alert] = _told(tmp_path)
    assert alert.happening == "run.interrupted"
    assert "was killed after at least 1.5 min; the run goes on now" in alert.text


def test_a_skipped_run_is_told(tmp_path: Path, alerts: Alerts) -> None:
    tell_skipped(alerts, WorkspaceBusy("/w is held by run 'tiny' (process 7)"))
    assert _told(tmp_path)[0].text == "run made-up: skipped: WorkspaceBusy: /w is held by run 'tiny' (process 7)"


def test_a_finished_run_is_told_with_its_accuracy(tmp_path: Path, alerts: Alerts) -> None:
    def measured(value: float) -> dict[str, object]:
        return {"evaluation": {"test/greedy_accuracy": {"estimate": value}}}

    summary = {
        "champion": {"round": 1, "policy_id": "p"},
        "rounds": [measured(0.1), measured(0.35), measured(0.3)],
        "seconds": {"whole": 9.0},
    }
    tell_finished(alerts, summary)
    tell_finished(alerts, summary)
    [alert] = _told(tmp_path)
    assert alert.text.endswith(
        "finished; the champion is the policy of round 1, greedy accuracy on test from 0.100 to 0.350"
    )
    assert json.loads(alert.model_dump_json())["details"]["rounds"] == 2
