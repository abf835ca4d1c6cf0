"""Old abilities in the report and at the terminal, on a run that was written by hand."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from configs.disk.files import write_json, write_jsonl
from configs.records import Estimate
from configs.schema.measuring.retention import RetentionBound
from flows import launch
from grpo_train.measuring.retention.changes import RetentionReport, losses, suite_estimates
from tasks.runs.run_records import RunRecords, read_run_records
from tasks.runs.workspace import before_cold_start_folder
from tasks.showing.old_abilities import kept_of, retention_table, summarised
from tasks.showing.report import render
from tests.paths import TINY
from tests.tasks.showing.synthetic_run import write_run

LOST = {0: 0.0, 1: 0.25, 2: 0.125}
"""round: nats a token that its policy is below the given one, on every text"""


def with_old_abilities(root: Path) -> Path:
    """A run whose round 2 lost less than round 1, which is its champion; a bound of 0.2."""
    folder = write_run(root / "runs" / "made-up")
    run_file = folder / "run.json"
    content = json.loads(run_file.read_text())
    content["config"]["evaluation"]["retention"] = {"prose": {"kind": "text", "path": "prose.jsonl"}}
    content["config"]["promotion"]["retention"] = {"prose": {"max_loss": 0.2}}
    write_json(run_file, content)
    rows = {
        i: [{"suite": "prose", "item": str(k), "value": -2.0 - k - lost} for k in range(4)] for i, lost in LOST.items()
    }
    for i, measured in rows.items():
        evaluate = folder / f"round_{i:03d}" / "evaluate"
        kl_task = Estimate(estimate=0.01 * i, low=0.0, high=0.03, n=16)
        estimates = suite_estimates(measured, run_seed=0, draws=50)
        report = RetentionReport(policy_id=str(i), suites=estimates, kl_task=kl_task)
        write_jsonl(evaluate / "retention.jsonl", measured)
        write_json(evaluate / "retention.json", report.model_dump())
        if i > 0:
            _bounded(folder / f"round_{i:03d}" / "promote" / "decision.json", rows[0], measured)
    return folder


def _bounded(path: Path, given: list[dict[str, Any]], measured: list[dict[str, Any]]) -> None:
    found = losses(given, measured, {"prose": RetentionBound(max_loss=0.2)}, run_seed=0, draws=50, confidence=0.9)
    write_json(path, json.loads(path.read_text()) | {"retention": [loss.model_dump() for loss in found]})


def test_changes_are_against_the_given_policy_and_the_champion_before(tmp_path: Path) -> None:
    records = read_run_records(with_old_abilities(tmp_path))
    [given], [first], [second] = (kept_of(records, record) for record in records.rounds)
    assert (given.unit, given.value.estimate, given.change, given.change_champion) == ("nats a token", -3.5, None, None)
    assert first.change is not None
    assert first.change_champion == first.change
    assert (first.change.estimate, first.change.n) == (-0.25, 4)
    assert second.change is not None
    assert second.change_champion is not None
    assert (second.change.estimate, second.change_champion.estimate) == (-0.125, 0.125)
    assert [line.loss is not None and line.loss.is_allowed for line in (first, second)] == [False, True]


def test_the_report_has_a_section_and_leaves_it_out_without_suites(tmp_path: Path) -> None:
    page = render(read_run_records(with_old_abilities(tmp_path)), {})
    section = page.partition('<h2 id="old-abilities">')[2].partition("<h2")[0]
    assert section.count("<tr>") == 1 + 3
    assert '<data value="-0.25">-0.2500</data>' in section
    assert '<data value="0.02">0.0200</data>' in section
    assert section.index(">lost</span>") < section.index(">kept</span>")
    assert "old-abilities" not in render(read_run_records(write_run(tmp_path / "plain" / "runs" / "made-up")), {})


def test_the_terminal_has_a_table_and_leaves_it_out_without_suites(tmp_path: Path) -> None:
    summary = summary_of(with_old_abilities(tmp_path))
    shown = Console(width=80, record=True)
    table = retention_table(summary)
    assert table is not None
    shown.print(table)
    lines = shown.export_text().splitlines()
    assert [line.split() for line in lines if "prose" in line][1:] == [
        ["1", "prose", "-3.750", "-0.2500", "[-0.2500,", "-0.2500]", "0.0100"],
        ["2", "prose", "-3.625", "-0.1250", "[-0.1250,", "-0.1250]", "0.0200"],
    ]
    assert max(map(len, lines)) <= 80
    plain = summary_of(write_run(tmp_path / "plain" / "runs" / "made-up"))
    assert retention_table(plain) is None
    assert [row.keys() for row in plain["rounds"]] == [{"round"}] * 3


def test_evaluate_prints_the_suites_of_the_policy_that_it_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = read_run_records(with_old_abilities(tmp_path)).rounds[1].reports
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "in_a_flow", lambda *_: reports)
    launch.evaluate_champion(TINY, (), "made-up")
    shown = capsys.readouterr().out
    assert [line.split()[:4] for line in shown.splitlines() if "prose" in line] == [["1", "prose", "-3.750", "-0.2500"]]
    assert "change is paired, against the given policy" in shown
    before = before_cold_start_folder(tmp_path / "runs" / "made-up") / "evaluate"
    write_json(before / "retention.json", RetentionReport(policy_id="before", suites={}).model_dump())
    launch.evaluate_champion(TINY, (), "made-up")
    shown = " ".join(capsys.readouterr().out.split())
    assert "change is paired, against the policy before the cold start; KL is from the one after it" in shown


@pytest.mark.parametrize("is_cold", [False, True])
def test_the_page_calls_the_policy_that_a_cold_start_made_by_another_name_than_the_given_one(
    tmp_path: Path, is_cold: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = with_old_abilities(tmp_path)
    if is_cold:
        monkeypatch.setattr(RunRecords, "cold_start", "8 demonstrations, 4 updates, loss 2.000 -> 1.000")
    page = " ".join(re.sub("<[^>]*>", " ", render(read_run_records(folder), {})).split())
    against, kl = ("before", "after") if is_cold else ("given", "given")
    names = {"given": "the given policy"} | {word: f"the policy {word} the cold start" for word in ("before", "after")}
    assert f"change against {names[against]}" in page
    assert f"KL from {names[kl]}" in page
    assert f"answered greedily by {names[kl]} and by" in page
    assert ("given policy" in page) != is_cold


def summary_of(folder: Path) -> dict[str, Any]:
    """What summary.json has of the rounds' old abilities."""
    records = read_run_records(folder)
    return {"rounds": [{"round": record.index} | summarised(records, record) for record in records.rounds]}
