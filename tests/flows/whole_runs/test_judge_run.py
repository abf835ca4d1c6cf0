"""A whole run with five objectives, one of them a judge that fails a third of the time."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import statistics
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.flows.whole_runs.tiny_run import Call, regroup, summary_of
from tests.paths import TINY
from tests.reward_training.judges.judge_server import JudgeServer, judge_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

EPSILON = 1e-4


def fails_by_thirds(messages: list[dict[str, str]], number: int) -> str | tuple[int, str]:
    """By the text alone, so that asking again does not help: a third of the texts ends with an error or without a verdict."""
    draw = int(hashlib.sha256(messages[1]["content"].encode()).hexdigest(), 16)
    if draw % 6 == 0:
        return 503, "{}"
    return "I would rather not say." if draw % 6 == 1 else f'{{"score": {draw // 6 % 5}}}'


def write_config(folder: Path, judge: JudgeServer) -> Path:
    """tiny.yaml, one round, with a judge as the fifth objective."""
    (folder / "rubric.md").write_text("A good response has many digits.")
    settings: dict[str, Any] = yaml.safe_load(TINY.read_text())
    settings["rounds"] = 1
    settings["combination"] = {"max_unscored_share": 0.6}
    judged = {
        "name": "kind", "kind": "judge", "base_url": judge.url, "model": "m", "rubric": "rubric.md", "max_score": 4,
        "weight": 0.4, "max_retries": 0, "canaries": "off",
    }  # fmt: skip
    settings["rewards"].append(judged)
    path = folder / "judged.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Call:
    folder = tmp_path_factory.mktemp("judged")
    with judge_server(fails_by_thirds) as judge:
        call = regroup(folder, "run", str(write_config(folder, judge)))
    assert call.process.returncode == 0, call.err
    return call


def test_failures_are_counted_by_reason_in_each_stage(judged: Call) -> None:
    assert summary_of(judged.workspace, "judged")["status"] == "done"
    round_1 = judged.workspace / "runs/judged/round_001"
    for stage in ("policy", "evaluate", "regenerate"):
        lines = [json.loads(line) for line in (round_1 / stage / "journal.jsonl").read_text().splitlines()]
        counts: dict[str, float] = {}
        for line in lines:
            counts[line["key"]] = counts.get(line["key"], 0.0) + line["value"]
        assert counts["judge/kind/failed/status 503"] > 0
        assert counts["judge/kind/failed/no verdict"] > 0
        assert counts["usage/kind/calls"] > 0


def test_advantages_are_those_of_the_scores_that_arrived(judged: Call) -> None:
    """By hand: a missing part takes its group's mean of the ones that are there, and moves nobody."""
    path = judged.workspace / "runs/judged/round_001/policy/rollouts.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rewards = yaml.safe_load((judged.workspace / "judged.yaml").read_text())["rewards"]
    weights = {reward["name"]: reward["weight"] for reward in rewards}
    num_missing = 0
    for _, each in groupby(rows, key=lambda row: (row["step"], row["problem_key"])):
        group = list(each)
        assert set(group[0]["parts"]) == set(weights)
        filled = []
        for row in group:
            num_missing += row["parts"]["kind"] is None
            filled.append({name: mean_of_known(group, name) if v is None else v for name, v in row["parts"].items()})
        totals = [sum(weights[name] * value for name, value in parts.items()) for parts in filled]
        mean, std = statistics.fmean(totals), statistics.stdev(totals)
        for row, total in zip(group, totals, strict=True):
            expected = 0.0 if max(totals) - min(totals) <= 1e-6 else (total - mean) / (std + EPSILON)
            assert row["advantage"] == pytest.approx(expected, abs=1e-9)
    assert 0.15 < num_missing / len(rows) < 0.6


def mean_of_known(group: list[dict[str, Any]], name: str) -> float:
    known = [row["parts"][name] for row in group if row["parts"][name] is not None]
    return statistics.fmean(known) if known else 0.0


def test_verdicts_are_kept_for_the_next_time(judged: Call) -> None:
    with sqlite3.connect(judged.workspace / "judge_cache.sqlite") as database:
        replies = [row[0] for row in database.execute("SELECT reply FROM replies")]
    assert len(replies) > 50
    assert all("score" in reply or "rather not" in reply for reply in replies)


def test_a_judge_that_cannot_be_reached_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    path = write_config(tmp_path, JudgeServer(fails_by_thirds, url="http://127.0.0.1:9/v1"))
    call = regroup(tmp_path, "run", str(path))
    assert call.process.returncode == 2
    assert "gives no reply for 'm': no connection" in call.err + call.out
    assert not (tmp_path / "runs/judged/round_000/evaluate/manifest.json").exists()
