"""Readers of what stages wrote: the same for the code that goes on from it and for the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from grpo_train.train_result import TrainResult
from tasks.runs import stage_files


def test_what_is_not_there_yet_is_none_or_empty(tmp_path: Path) -> None:
    assert stage_files.evaluation_reports(tmp_path) == {}
    assert stage_files.rows(tmp_path / "results.jsonl") == []
    assert stage_files.journal(tmp_path) == []
    assert stage_files.round_manifests(tmp_path) == []
    readers = [stage_files.reward_model_report, stage_files.train_result, stage_files.decision]
    assert [reader(tmp_path) for reader in readers] == [None, None, None]
    assert stage_files.people_win_rate(tmp_path) is None


def test_a_training_is_read_with_what_it_handed_on(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"num_updates": 3, "stopped_by": null, "advantage_share": {"a": 1.0}}')
    (tmp_path / "curriculum.json").write_text('{"epoch": 0.5, "rates": {}}')
    expected = TrainResult(num_updates=3, advantage_share={"a": 1.0}, curriculum={"epoch": 0.5, "rates": {}})
    assert stage_files.train_result(tmp_path) == expected


def test_a_line_that_is_still_being_written_is_left_out_and_a_line_separator_is_no_line_end(tmp_path: Path) -> None:
    """str.splitlines, which one of the former readers used, ends a line at U+2028 too."""
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps({"text": "a\u2028b"}, ensure_ascii=False) + '\n{"text": "to')
    assert stage_files.rows(path) == [{"text": "a\u2028b"}]


@pytest.mark.parametrize(("written", "rate"), [({"win_rate": None}, None), ({"win_rate": {"estimate": 0.5, "low": 0.2, "high": 0.8, "n": 4}}, 0.5)])  # fmt: skip
def test_a_comparison_that_nobody_answered_has_no_win_rate(tmp_path: Path, written: dict, rate: float | None) -> None:
    (tmp_path / "comparison.json").write_text(json.dumps({"asked": 4} | written))
    found = stage_files.people_win_rate(tmp_path)
    assert (found and found.estimate) == rate
