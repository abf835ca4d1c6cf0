"""A whole run on four sources, each with rewards of its own: a family with a number, a file with the user's function, a
file with another checker, and a file without gold answers, whose style a judge grades."""

from __future__ import annotations

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

FUNCTION = """
from pathlib import Path

def tests_pass(problems, completions):
    with Path("asked.txt").open("a") as file:
        file.writelines(problem.source + "\\n" for problem in problems)
    return [float(len(completion.token_ids) % 2) for completion in completions]
"""
SCORED_BY = {
    "chain_sum": {"number", "brief"},
    "code": {"tests", "brief", "taste"},
    "words.jsonl": {"letter", "brief"},
    "style": {"kind", "brief", "taste"},
}
CHECKERS = {"chain_sum": "number", "code": "tests", "words.jsonl": "letter"}
EPSILON = 1e-4


def settings(judge: JudgeServer) -> dict[str, Any]:
    tiny: dict[str, Any] = yaml.safe_load(TINY.read_text())
    [family] = tiny["problems"]["sources"]
    tiny["rounds"] = 1
    tiny["problems"] |= {
        "sources": [
            family | {"size": 60},
            {"kind": "jsonl", "path": "code.jsonl", "source": "code"},
            {"kind": "jsonl", "path": "words.jsonl"},
            {"kind": "jsonl", "path": "style.jsonl", "source": "style"},
        ],
        "dev": 24,
        "test": 24,
    }
    judged = {
        "name": "kind", "kind": "judge", "sources": ["style"], "base_url": judge.url, "model": "m",
        "rubric": "rubric.md", "max_score": 4, "canaries": "off",
    }  # fmt: skip
    tiny["rewards"] = [
        {"name": "number", "kind": "outcome", "sources": ["chain_sum"]},
        {"name": "tests", "kind": "python", "function": "tests_of_mine:tests_pass", "sources": ["code"]},
        {"name": "letter", "kind": "outcome", "checker": "regex", "extract": "whole", "pattern": "(?s).*[a-m].*", "sources": ["words.jsonl"]},
        judged,
        {"name": "brief", "kind": "length", "target": 2, "limit": 16, "weight": 0.25},
        {"name": "taste", "kind": "reward_model", "model": "taste", "weight": 0.5, "sources": ["code", "style"]},
    ]  # fmt: skip
    tiny["reward_models"]["taste"]["min_pairs"] = 8
    tiny["evaluation"]["checker"] = ["number", "tests", "letter"]
    tiny["promotion"]["metric"] = "greedy_accuracy/code"
    return tiny


def style_of(messages: list[dict[str, str]], number: int) -> str:
    return f'{{"score": {len(messages[1]["content"]) % 5}}}'


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Call:
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "tests_of_mine.py").write_text(FUNCTION)
    (folder / "rubric.md").write_text("A good response is kind.")
    for name, count in (("code", 50), ("words", 50), ("style", 50)):
        rows = [{"question": f"{name} {i}?", "answer": f"{i} {name}"} for i in range(count)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with judge_server(style_of) as judge:
        (folder / "mixed.yaml").write_text(yaml.safe_dump(settings(judge)))
        call = regroup(folder, "run", "mixed.yaml")
    assert call.process.returncode == 0, call.err
    questions = [request["messages"][1]["content"] for request in judge.requests[1:]]  # after the doctor's probe
    assert questions
    assert all("style " in question for question in questions)
    return call


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def sources(run: Path) -> dict[str, str]:
    """{problem key: source}."""
    files = [path for path in (run / "problems").glob("*.jsonl") if path.name != "journal.jsonl"]
    return {row["key"]: row["source"] for path in files for row in lines(path)}


def test_each_response_has_the_scores_that_apply_and_the_advantage_of_their_sum(mixed: Call) -> None:
    run = mixed.workspace / "runs/mixed"
    source_of = sources(run)
    weights = {
        reward["name"]: reward.get("weight", 1.0)
        for reward in yaml.safe_load((mixed.workspace / "mixed.yaml").read_text())["rewards"]
    }
    seen = set()
    rows = lines(run / "round_001/policy/rollouts.jsonl")
    for _, each in groupby(rows, key=lambda row: (row["step"], row["problem_key"])):
        group = list(each)
        source = source_of[group[0]["problem_key"]]
        seen.add(source)
        assert all(row["parts"].keys() == SCORED_BY[source] for row in group)
        totals = [sum(weights[name] * value for name, value in row["parts"].items()) for row in group]
        assert [row["total"] for row in group] == pytest.approx(totals)
        mean, std = statistics.fmean(totals), statistics.stdev(totals)
        for row, total in zip(group, totals, strict=True):
            expected = 0.0 if max(totals) - min(totals) <= 1e-6 else (total - mean) / (std + EPSILON)
            assert row["advantage"] == pytest.approx(expected, abs=1e-6)
    assert seen == SCORED_BY.keys()


def test_the_function_was_called_for_its_source_alone(mixed: Call) -> None:
    assert set((mixed.workspace / "asked.txt").read_text().split()) == {"code"}


def test_each_problem_is_right_by_its_own_checker_and_accuracy_is_told_by_source(mixed: Call) -> None:
    folder = mixed.workspace / "runs/mixed/round_001/evaluate"
    report = json.loads((folder / "report.json").read_text())
    for split in ("dev", "test"):
        rows = [row for row in lines(folder / "results.jsonl") if row["split"] == split]
        values = report[split]["values"]
        by_source = {source: [row for row in rows if row["source"] == source] for source in SCORED_BY}
        assert all("greedy_accuracy" not in row for row in by_source["style"])
        assert "greedy_accuracy/style" not in values
        for source, checker in CHECKERS.items():
            right = [float(row[f"greedy/{checker}"] >= 1) for row in by_source[source]]
            found = values[f"greedy_accuracy/{source}"]
            assert (found["estimate"], found["n"]) == (pytest.approx(statistics.fmean(right)), len(right))
            assert found["low"] <= found["estimate"] <= found["high"]
        num_checked = sum(len(by_source[source]) for source in CHECKERS)
        assert values["greedy_accuracy"]["n"] == num_checked < len(rows) == 24
        assert values["greedy/kind"]["n"] == len(by_source["style"])
    journal = {line["key"] for line in lines(folder / "journal.jsonl")}
    assert {f"evaluation/dev/greedy_accuracy/{source}" for source in CHECKERS} <= journal


def test_promotion_looks_at_the_source_that_it_names(mixed: Call) -> None:
    run = mixed.workspace / "runs/mixed"
    decision = json.loads((run / "round_001/promote/decision.json").read_text())
    dev = [row for row in lines(run / "problems/dev.jsonl") if row["source"] == "code"]
    assert (decision["metric"], decision["n"]) == ("greedy_accuracy/code", len(dev))


def test_pairs_are_made_where_the_reward_model_is_used(mixed: Call) -> None:
    run = mixed.workspace / "runs/mixed"
    source_of = sources(run)
    pairs = lines(run / "round_000/regenerate/pairs.jsonl")
    assert {source_of[pair["problem_key"]] for pair in pairs} == {"code", "style"}


def test_tables_and_the_page_tell_the_accuracy_by_source(mixed: Call) -> None:
    assert "Greedy accuracy by source" in mixed.out
    assert "words.jsonl" in mixed.out
    assert "<h2>Accuracy by source</h2>" in (mixed.workspace / "runs/mixed/report.html").read_text()
    shares = summary_of(mixed.workspace, "mixed")["rounds"][1]["advantage_share"]
    assert shares["tests"] > 0
    assert shares["kind"] > 0


def test_mlflow_takes_the_accuracy_of_each_source(mixed: Call) -> None:
    with sqlite3.connect(mixed.workspace / "mlflow.db") as database:
        keys = {row[0] for row in database.execute("SELECT DISTINCT key FROM metrics")}
    assert {f"evaluation/test/greedy_accuracy/{source}" for source in CHECKERS} <= keys
