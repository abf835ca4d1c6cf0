"""A whole run whose training is done by child jobs, with an adapter that is carried on: killed, and gone on with."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest

from tests.flows.whole_runs.tiny_run import Call, regroup, summary_of
from tests.paths import TINY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SETTINGS = [
    "--set",
    "launcher.kind=process",
    "--set",
    "grpo_config.lora={rank: 4, between_rounds: carry_on}",
    "--set",
    "grpo_config.save_steps=1",
]


def jobs_of(call: Call) -> list[psutil.Process]:
    children = psutil.Process(call.process.pid).children(recursive=True)
    return [child for child in children if "tasks.job" in child.cmdline()]


def test_a_run_by_child_jobs_survives_a_kill_and_carries_its_adapter_on(tmp_path: Path) -> None:
    first = Call(tmp_path, "run", str(TINY), *SETTINGS)
    journal = tmp_path / "runs/tiny/round_001/policy/journal.jsonl"
    first.until(lambda: journal.exists() and '"step":2' in journal.read_text())
    jobs = jobs_of(first)
    assert jobs
    first.kill()
    _, alive = psutil.wait_procs(jobs, timeout=10)
    assert not alive

    second = regroup(tmp_path, "run", str(TINY), *SETTINGS)
    assert second.process.returncode == 0, second.err
    assert "round 1 · policy: goes on after step" in second.err
    rounds = summary_of(tmp_path)["rounds"]
    assert len({row["policy_id"] for row in rounds}) == 3
    given = rounds[0]["policy_id"]
    for number in (1, 2):
        base = json.loads((tmp_path / f"runs/tiny/round_{number:03d}/policy/adapter/origin.json").read_bytes())["base"]
        assert base["id"] == given
    assert "child job" in (tmp_path / "runs/tiny/log.txt").read_text()
