"""What the stage of a reward model says of labels and rows that are left out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from configs.disk.files import JOURNAL, Journal, write_json, write_jsonl
from configs.records import PreferencePair
from tasks.running.stage import ALONE
from tasks.runs.history import ModelRef, left_out_file
from tasks.stages.reward_model import RewardModelSpec, body
from tests.tasks.stage_kit import tiny

FILE_LABELER = 'reward_models.taste.labeler={"kind": "file", "path": "prefs.jsonl"}'


def pair(chosen: str, rejected: str, round_index: int) -> PreferencePair:
    return PreferencePair(
        problem_key="k", prompt="q", chosen=chosen, rejected=rejected, margin=1.0, objective="taste", labeler="file",
        sources=("file", "file"), round=round_index, split="train",
    )  # fmt: skip


def run_body(tmp_path: Path, *overrides: str) -> tuple[dict[str, int], dict[str, float], list[str]]:
    """(left_out of the report, the journal's metrics, warnings) of a stage with too few pairs to train on."""
    new, earlier = tmp_path / "new" / "pairs.jsonl", tmp_path / "earlier" / "pairs.jsonl"
    write_jsonl(new, [pair("a", "b", 1), pair("c", "d", 1)])
    write_jsonl(earlier, [pair("b ", "a", 0), pair("c", "d", 0), pair("e", "f", 0)])
    write_json(left_out_file(new), {"taste": {"contradicting": 4, "tie": 2}, "other": {"null": 9}})
    spec = RewardModelSpec(
        config=tiny("reward_models.taste.min_pairs=99", *overrides),
        round=1,
        name="taste",
        base=ModelRef(id="x", path="p"),
        new_pairs=[str(new)],
        earlier_pairs=[str(earlier)],
    )
    out_dir, warnings = tmp_path / "out", list[str]()
    out_dir.mkdir()
    body(spec, out_dir, replace(ALONE, warn=warnings.append))
    metrics = {line.key: line.value for line in Journal(out_dir / JOURNAL).read()}
    return json.loads((out_dir / "report.json").read_text())["left_out"], metrics, warnings


def test_labels_left_out_are_in_the_report_the_journal_and_the_log(tmp_path: Path) -> None:
    """Of two labels that contradict each other the newest stood, and nothing told of the other one."""
    left_out, metrics, [warning] = run_body(tmp_path, FILE_LABELER)
    # of the earlier pairs one is contradicted and one said again; the file itself had 4 and 2 rows
    assert left_out == {"contradicting": 5, "duplicate": 1, "tie": 2}
    assert {key: value for key, value in metrics.items() if "left_out" in key} == {
        "pairs/left_out/contradicting": 5.0,
        "pairs/left_out/duplicate": 1.0,
        "pairs/left_out/tie": 2.0,
    }
    assert "reward model taste" in warning
    assert "2 ties, 1 that repeat a pair, 5 that contradict another row" in warning


def test_labels_of_samples_may_change_without_a_warning(tmp_path: Path) -> None:
    left_out, _, warnings = run_body(tmp_path)
    assert left_out["contradicting"] == 5
    assert warnings == []
