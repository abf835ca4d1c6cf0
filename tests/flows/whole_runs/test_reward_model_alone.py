"""A reward model that a file labels is trained before there is a run, and the run of that name starts from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.disk.files import JOURNAL, Journal, read_manifest
from tests.flows.whole_runs.tiny_run import regroup, summary_of
from tests.paths import TINY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def write_config(folder: Path) -> Path:
    rows = [{"prompt": f"Say {i}", "chosen": "77" * (1 + i % 3), "rejected": "a b c" * (1 + i % 2)} for i in range(160)]
    rows += [{"prompt": "Say 7", "chosen": rows[7]["rejected"], "rejected": f"{rows[7]['chosen']} "}]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings: dict[str, Any] = yaml.safe_load(TINY.read_text())
    settings["rounds"] = 1
    settings["reward_models"]["taste"] |= {"labeler": {"kind": "file", "path": "pairs.jsonl"}, "max_pairs": 96}
    path = folder / "labelled.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def test_a_reward_model_from_a_file_alone_and_then_in_a_run(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    alone = regroup(tmp_path, "reward-model", str(config))
    assert alone.process.returncode == 0, alone.err
    assert "taste" in alone.out
    assert "accepted: held-out accuracy" in alone.out
    assert "96 training" in alone.out
    assert "2 that contradict another row" in alone.err
    [folder] = (tmp_path / "runs/labelled/round_000").glob("**/taste*")
    alone_id = json.loads((folder / "report.json").read_text())["id"]

    run = regroup(tmp_path, "run", str(config))
    assert run.process.returncode == 0, run.err
    stage = tmp_path / "runs/labelled/round_001/reward_model/taste"
    assert read_manifest(stage).inputs["base"] == alone_id
    pairs = [json.loads(line) for line in (stage / "train_pairs.jsonl").read_text().splitlines()]
    assert {pair["labeler"] for pair in pairs} == {"file"}
    assert "Say 7" not in {pair["prompt"][0]["content"] for pair in pairs}
    counts = {line.key: line.value for line in Journal(stage / JOURNAL).read() if "left_out" in line.key}
    assert counts["pairs/left_out/contradicting"] == 2.0
    assert set(counts) <= {"pairs/left_out/contradicting", "pairs/left_out/duplicate"}  # some are drawn again
    model = summary_of(tmp_path, "labelled")["rounds"][1]["reward_models"]["taste"]
    assert model["accepted"]
    assert model["id"] != alone_id
