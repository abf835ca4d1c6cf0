"""Whole runs of methods whose samples are there before they train: the tiny configuration with the block `method` alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from configs.disk.files import Journal, read_manifest, read_rows
from tests.flows.whole_runs.tiny_run import regroup, summary_of
from tests.paths import TINY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.parametrize("kind", ["dpo", "ipo"])
def test_two_rounds_learn_from_the_samples_of_the_round_before(tmp_path: Path, kind: str) -> None:
    method = f"method={{kind: {kind}, learning_rate: 1.0e-3, batch_size: 8}}"
    call = regroup(tmp_path, "run", str(TINY), "--set", method)
    assert call.process.returncode == 0, call.err
    run = tmp_path / "runs" / "tiny"
    assert [row["promoted"] for row in summary_of(tmp_path)["rounds"]] == [False, True, True]  # rule: always
    for round_index in (1, 2):
        folder, before = run / f"round_00{round_index}/policy", run / f"round_00{round_index - 1}/regenerate"
        made, sampled = read_rows(folder / "training_pairs.jsonl"), read_rows(before / "completions.jsonl")
        written = {(tuple(row["prompt_ids"]), tuple(row["token_ids"])) for row in sampled}
        assert len(made) >= 16
        assert {
            (tuple(p["prompt_ids"]), tuple(p[side])) for p in made for side in ("chosen_ids", "rejected_ids")
        } <= written
        tokens = json.loads((folder / "result.json").read_bytes())["tokens"]
        assert sum(tokens.values()) == sum(len(row["token_ids"]) for row in sampled)
        manifest = read_manifest(folder)
        assert manifest is not None
        assert manifest.inputs["samples/completions"]
        journal = Journal(folder / "journal.jsonl").read()
        assert max(line.value for line in journal if line.key == "dpo/margin") > 0
    assert "pairs in the right order" in (run / "report.html").read_text()


def test_a_round_without_enough_pairs_keeps_the_champion_and_samples_from_it_once(tmp_path: Path) -> None:
    """No pair differs by 100; the challenger has the champion's weights, is measured and refused."""
    method = "method={kind: dpo, min_margin: 100}"
    call = regroup(tmp_path, "run", str(TINY), "--set", method, "--set", "rounds=1", "--set", "promotion.rule=better")
    assert call.process.returncode == 0, call.err
    assert "0 preference pairs, fewer than method.min_pairs=16" in " ".join(call.err.split())
    [_, first] = summary_of(tmp_path)["rounds"]
    assert not first["promoted"]
    folder = tmp_path / "runs/tiny/round_001"
    assert len(read_rows(folder / "regenerate/completions.jsonl")) == 40 * 4
    assert "nothing was trained" in (tmp_path / "runs/tiny/report.html").read_text()


def test_best_of_n_offline_writes_once_a_round(tmp_path: Path) -> None:
    call = regroup(tmp_path, "run", str(TINY), "--set", "method={kind: best_of_n, mode: offline}", "--set", "rounds=1")
    assert call.process.returncode == 0, call.err
    folder = tmp_path / "runs/tiny/round_001/policy"
    assert len(read_rows(folder / "completions.jsonl")) == 6 * 16  # as many as the six steps of GRPO
    assert summary_of(tmp_path)["rounds"][1]["promoted"]  # rule: always
