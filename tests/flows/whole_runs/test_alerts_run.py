"""A run that fails, is gone on with and killed: each happening reaches a command once, and Prefect."""

from __future__ import annotations

import json
import os
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.flows.whole_runs.tiny_run import Call, regroup, summary_of
from tests.paths import TINY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

REWARD = """
import os
def reward(problems, completions):
    if os.path.exists("service_is_down"):
        raise ConnectionError("no answer from https://me:secret@checker.example.org")
    return [float("7" in completion.text) for completion in completions]
"""
ALERTS = """
alerts:
  - on: [challenger.promoted, challenger.refused, reward_model.refused, run.failed, run.interrupted, run.finished]
    command: [sh, -c, "cat >> told.jsonl"]
"""


def _told(workspace: Path) -> list[dict[str, Any]]:
    path = workspace / "told.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _prefects(workspace: Path) -> Counter[str]:
    with sqlite3.connect(workspace / ".prefect" / "prefect.db") as database:
        rows = database.execute("select event from events where event like 'regroup.%'").fetchall()
    return Counter(name for (name,) in rows)


def test_each_happening_of_a_disturbed_run_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(REWARD)
    config = tmp_path / "tiny.yaml"
    config.write_text(TINY.read_text().replace("rule: always", "rule: better") + ALERTS)
    override = "rewards.1={name: digits, kind: python, function: 'mine:reward', weight: 0.5}"
    arguments = ("run", str(config), "--set", override)
    training = tmp_path / "runs" / "tiny" / "round_001" / "policy" / "journal.jsonl"

    failing = Call(tmp_path, *arguments)
    failing.until((training.parents[2] / "round_000" / "round.json").exists)
    (tmp_path / "service_is_down").touch()
    assert failing.end() == 1, failing.err
    [failed] = _told(tmp_path)
    assert failed["event"] == "regroup.run.failed"
    assert "no answer from" in failed["text"]
    assert "secret" not in json.dumps(failed)
    os.remove(tmp_path / "service_is_down")

    killed = Call(tmp_path, *arguments)
    killed.until(lambda: (training.parents[1] / "promote" / "manifest.json").exists())
    killed.kill()
    last = regroup(tmp_path, *arguments)
    assert last.process.returncode == 0, last.err
    again = regroup(tmp_path, *arguments)
    assert "is finished already" in again.err

    rounds = summary_of(tmp_path)["rounds"][1:]
    decided = Counter(f"regroup.challenger.{'promoted' if row['promoted'] else 'refused'}" for row in rounds)
    refused = sum(not model["accepted"] for row in rounds for model in row["reward_models"].values())
    wanted = decided + Counter({"regroup.run.failed": 1, "regroup.run.interrupted": 1, "regroup.run.finished": 1})
    wanted += Counter({"regroup.reward_model.refused": refused})
    told = {message["id"]: message["event"] for message in _told(tmp_path)}  # a kill may have come before our note
    assert Counter(told.values()) == wanted
    assert {name: _prefects(tmp_path)[name] for name in wanted} == dict(wanted)
    seconds = summary_of(tmp_path)["seconds"]
    assert seconds["whole"] == pytest.approx(seconds["stages"] + seconds["lost"] + seconds["bookkeeping"])
    assert seconds["stages"] > sum(sum(row["seconds"].values()) for row in rounds)
