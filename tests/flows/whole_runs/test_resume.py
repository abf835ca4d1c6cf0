"""Killed anywhere, stopped, raised, retrained by hand: the same command goes on."""

from __future__ import annotations

import json
import signal
import sqlite3
from functools import partial
from pathlib import Path

import psutil
import pytest

from configs.disk.files import read_manifest
from tests.flows.whole_runs.tiny_run import Call, journal_values, regroup, servers_on_record, summary_of
from tests.paths import TINY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

STAGES = [
    "problems",
    "round_000/evaluate",
    "round_000/regenerate",
    "round_001/reward_model/taste",
    "round_001/policy",
    "round_001/promote",
]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody interrupted."""
    workspace = tmp_path_factory.mktemp("undisturbed")
    call = regroup(workspace, "run", str(TINY))
    assert call.process.returncode == 0, call.err
    return workspace


def _mlflow_rows(workspace: Path, query: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(workspace / "mlflow.db") as database:
        return database.execute(query).fetchall()


def _assert_same_outcome(one: Path, other: Path) -> None:
    """Bit-identical weights, and the same journals apart from times."""
    first, second = (summary_of(workspace)["rounds"] for workspace in (one, other))
    assert [row["policy_id"] for row in first] == [row["policy_id"] for row in second]
    assert [row["reward_models"] for row in first] == [row["reward_models"] for row in second]
    for journal in (one / "runs" / "tiny").glob("round_*/**/journal.jsonl"):
        place = journal.parent.relative_to(one)
        assert journal_values(journal.parent) == journal_values(other / place), place


def _assert_told_once(workspace: Path) -> None:
    """No run is RUNNING, and no step of a metric stands twice."""
    assert _mlflow_rows(workspace, "select name from runs where status = 'RUNNING'") == []
    twice = "select run_uuid, key, step from metrics group by run_uuid, key, step having count(*) > 1"
    assert _mlflow_rows(workspace, twice) == []


def _is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_run_killed_in_every_stage_ends_as_if_it_had_not_been(tmp_path: Path, undisturbed: Path) -> None:
    run = tmp_path / "runs" / "tiny"
    for stage in STAGES:
        call = Call(tmp_path, "run", str(TINY))
        call.until((run / stage).exists)
        [record] = servers_on_record(tmp_path)
        server = psutil.Process(json.loads(record.read_bytes())["server"]["pid"])
        call.kill()
        assert server.is_running()
        finished = sorted(path.parent for path in run.rglob("manifest.json"))
        stamps = [(folder / "manifest.json").read_bytes() for folder in finished]
        # looking at a run ends nothing; the next run ends the server that was left
        assert regroup(tmp_path, "status").process.returncode == 0
        assert server.is_running()

        following = Call(tmp_path, "run", str(TINY))
        following.until(partial(_is_gone, server))
        following.kill()
        assert [(folder / "manifest.json").read_bytes() for folder in finished] == stamps
    last = regroup(tmp_path, "run", str(TINY))
    assert last.process.returncode == 0, last.err
    assert "round 0 · evaluate: already done" in last.err
    assert servers_on_record(tmp_path) == []
    _assert_same_outcome(undisturbed, tmp_path)
    _assert_told_once(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_at_a_step_boundary_and_the_run_goes_on(
    number: signal.Signals, tmp_path: Path, undisturbed: Path
) -> None:
    journal = tmp_path / "runs" / "tiny" / "round_001" / "policy" / "journal.jsonl"
    call = Call(tmp_path, "run", str(TINY))
    call.until(journal.exists)
    call.process.send_signal(number)
    assert call.end() == 130
    assert "stopping at the next step boundary" in call.err
    assert "Traceback" not in call.err
    assert servers_on_record(tmp_path) == []
    assert summary_of(tmp_path)["status"] == "stopped"
    assert ("policy", "KILLED") in _mlflow_rows(tmp_path, "select name, status from runs")
    assert "interrupted, step" in regroup(tmp_path, "status").out

    again = regroup(tmp_path, "run", str(TINY))
    assert again.process.returncode == 0, again.err
    assert "round 1 · reward model · taste: already done" in again.err
    assert "round 1 · policy: goes on after step" in again.err
    _assert_same_outcome(undisturbed, tmp_path)
    _assert_told_once(tmp_path)


def test_a_model_retrained_by_hand_is_where_the_next_round_starts(tmp_path: Path) -> None:
    # enough held-out pairs for a lower bound over 0, so that the models are accepted
    more = ["--set", "problems.sources.0.size=180", "--set", "regeneration.num_problems=40"]
    first = regroup(tmp_path, "run", str(TINY), "--set", "rounds=1", *more)
    assert first.process.returncode == 0, first.err
    by_hand = regroup(tmp_path, "reward-model", str(TINY), "--run", "tiny", "--set", "rounds=1", *more)
    assert by_hand.process.returncode == 0, by_hand.err
    name, short_id, verdict = by_hand.out.split()[:3]
    assert (name, verdict) == ("taste", "accepted:")

    raised = regroup(tmp_path, "run", str(TINY), "--set", "rounds=2", *more)
    assert raised.process.returncode == 0, raised.err
    assert "round 1 · policy: already done" in raised.err
    run = tmp_path / "runs" / "tiny"
    report = json.loads((run / "round_001" / "reward_model_by_hand" / "taste" / "report.json").read_bytes())
    assert report["accepted"]
    assert report["id"].startswith(short_id)
    manifest = read_manifest(run / "round_002" / "reward_model" / "taste")
    assert manifest is not None
    assert manifest.inputs["base"] == report["id"]
    assert len(summary_of(tmp_path)["rounds"]) == 3


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_prefect_starts_ends_its_server_too(tmp_path: Path, sent: signal.Signals) -> None:
    call = Call(tmp_path, "run", str(TINY))
    call.until(lambda: any(json.loads(path.read_bytes())["server"] for path in servers_on_record(tmp_path)))
    server = psutil.Process(call.server_pid())
    call.process.send_signal(sent)
    assert call.end(120) == 130
    assert "ended by Ctrl-C or SIGTERM; the same command goes on" in call.err
    assert servers_on_record(tmp_path) == []
    assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE
