"""How far runs are, as `regroup status` shows it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tasks.runs.progress import all_progress, unreadable_runs

HEAVY = "torch", "numpy", "mlflow", "prefect", "transformers", "configs.schema"


def put(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def a_run(root: Path, name: str, *, created_ms: int = 1, done: bool = True) -> Path:
    """A run of one round, whose challenger was promoted."""
    folder = root / "runs" / name
    put(folder / "run.json", {"name": name, "config": {"rounds": 1}, "created_ms": created_ms})
    for index, accuracy in enumerate([0.25, 0.5]):
        values = {"greedy_accuracy": {"estimate": accuracy}}
        put(folder / f"round_{index:03}" / "evaluate" / "report.json", {"test": {"values": values}})
        for started_ms, stage in enumerate(["evaluate", "regenerate"]):
            manifest = {"stage": stage, "round": index, "started_ms": started_ms}
            put(folder / f"round_{index:03}" / stage / "manifest.json", manifest)
    put(folder / "round_001" / "promote" / "decision.json", {"promoted": True})
    if done:
        put(folder / "summary.json", {"status": "done", "rounds": [0, 1]})
    return folder


def test_runs_are_told_oldest_first_with_stage_and_accuracies(tmp_path: Path) -> None:
    a_run(tmp_path, "a", created_ms=2)
    interrupted = a_run(tmp_path, "b", done=False)
    (interrupted / "round_001" / "regenerate" / "manifest.json").unlink()
    put(interrupted / "round_001" / "policy" / "checkpoints" / "step_000040" / "checkpoint.json", {})
    second, first = reversed(all_progress(tmp_path))
    assert (first.name, first.finished, first.step, first.last_stage) == ("b", False, 40, "round 1 · evaluate")
    assert (second.name, second.finished, second.last_stage) == ("a", True, "round 1 · regenerate")
    assert second.accuracies == (0.25, 0.5)


def test_hard_links_count_once_and_broken_files_and_copies_are_passed_over(tmp_path: Path) -> None:
    folder = a_run(tmp_path, "a")
    before = sum(all_progress(tmp_path)[0].sizes.values())
    (folder / "weights").write_bytes(b"w" * 1000)
    os.link(folder / "weights", folder / "same")
    put(tmp_path / "runs" / "a.bak" / "run.json", {"name": "a", "config": {}, "created_ms": 1})
    (tmp_path / "runs" / "torn").mkdir()
    (tmp_path / "runs" / "torn" / "run.json").write_text("{")
    [only] = all_progress(tmp_path)
    assert sum(only.sizes.values()) == before + 1000


@pytest.mark.parametrize(
    "content", ["{", "[]", "null", '{"name": "torn"}', '{"name": "torn", "created_ms": "1", "config": {}}']
)
def test_a_run_whose_file_holds_no_run_is_named(tmp_path: Path, content: str) -> None:
    a_run(tmp_path, "a")
    (tmp_path / "runs" / "no run").mkdir()
    torn = a_run(tmp_path, "torn")
    assert unreadable_runs(tmp_path) == []
    (torn / "run.json").write_text(content)
    assert [run.name for run in all_progress(tmp_path)] == ["a"]
    assert unreadable_runs(tmp_path) == ["torn"]


def test_status_needs_no_heavy_import(tmp_path: Path) -> None:
    """It took three seconds, most of them for imports."""
    a_run(tmp_path, "a")
    program = (
        "import sys, pathlib; from flows.cli import main; code = main(['status']); "
        f"print(code, [name for name in {HEAVY!r} if name in sys.modules])"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines()[-1] == "0 []", result.stderr
    assert "0.250 -> 0.500" in result.stdout
