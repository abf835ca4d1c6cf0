"""`regroup compare` as a person calls it: killed in the middle and called again, it ends with the same result."""

from __future__ import annotations

import json
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.flows.whole_runs.tiny_run import Call, regroup
from tests.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

METHODS = {"grpo": {}, "rloo": {"combination": {"baseline": "leave_one_out", "scale": "none"}}}
SECOND = "small-rloo-s3"
"""the member in whose training the process is killed"""


def write_config(workspace: Path) -> Path:
    """configs/compare.yaml with two members whose trainings take six steps or so."""
    values = yaml.safe_load((ROOT / "configs" / "compare.yaml").read_text())
    values["compare"] |= {"methods": METHODS, "seeds": [3], "budget": {"generated_tokens": 1000}}
    values["problems"] |= {"dev": 8, "test": 8}
    path = workspace / "small.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def result_of(workspace: Path) -> dict[str, Any]:
    """comparison.json without what differs between two calls, its times and its memory."""
    result: dict[str, Any] = json.loads((workspace / "runs/compare-small/comparison.json").read_bytes())
    del result["seconds"], result["memory"]
    return result


def copied_from(workspace: Path, stage: str) -> str | None:
    """The run that the second member has a stage of round 0 from."""
    manifest = json.loads((workspace / "runs" / SECOND / "round_000" / stage / "manifest.json").read_bytes())
    name: str | None = manifest["copied_from"]
    return name


def mlflow_rows(workspace: Path, query: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(workspace / "mlflow.db") as database:
        return database.execute(query).fetchall()


def test_a_comparison_that_was_killed_and_called_again_has_the_same_result(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    undisturbed, killed = (tmp_path_factory.mktemp(name) for name in ("undisturbed", "killed"))
    whole = regroup(undisturbed, "compare", str(write_config(undisturbed)))
    assert whole.process.returncode == 0, whole.err
    assert "comparison: 2 runs, 0 finished; how long the others take is told when the first one is" in whole.err
    assert "comparison: 2 runs, 1 finished; the others take about " in whole.err
    assert whole.out.splitlines()[-1].endswith("runs/compare-small/comparison.json")
    assert "rloo against grpo: " in whole.out

    config = str(write_config(killed))
    call = Call(killed, "compare", config)
    call.until(lambda: any((killed / "runs" / SECOND / "round_001/policy/checkpoints").glob("step_*/checkpoint.json")))
    call.kill()
    stopped = Call(killed, "compare", config)
    stopped.until(lambda: "goes on after step" in stopped.err)
    stopped.process.send_signal(signal.SIGINT)
    assert stopped.end() == 130, stopped.err
    assert "the same command goes on from here" in stopped.err
    first = (killed / "runs/small-grpo-s3/round_001/policy/manifest.json").read_bytes()
    again = regroup(killed, "compare", config)
    assert again.process.returncode == 0, again.err
    assert (killed / "runs/small-grpo-s3/round_001/policy/manifest.json").read_bytes() == first
    assert [copied_from(killed, stage) for stage in ("evaluate", "regenerate")] == ["small-grpo-s3"] * 2
    assert result_of(killed) == result_of(undisturbed)

    [trained] = {method["num_trained"] for method in result_of(killed)["methods"]}
    assert trained == 1
    assert all(method["generated_tokens"] >= 1000 for method in result_of(killed)["methods"])
    assert result_of(killed)["short"] == []
    assert "<svg" in (killed / "runs/compare-small/compare.html").read_text()
    _assert_members_hang_under_the_comparison(killed)

    third = regroup(killed, "compare", config)
    assert third.process.returncode == 0, third.err
    assert "all runs of comparison small are finished already" in third.err
    assert "starting Prefect" not in third.err
    assert third.out == again.out
    assert mlflow_rows(killed, "select count(*) from runs where name = 'compare-small'") == [(1,)]

    changed = regroup(killed, "compare", config, "--set", "compare.budget.generated_tokens=2000")
    assert changed.process.returncode == 2
    assert "budget.generated_tokens is 2000, was 1000" in changed.err
    assert regroup(killed, "run", config).process.returncode == 2


def _assert_members_hang_under_the_comparison(workspace: Path) -> None:
    [(run_id, status)] = mlflow_rows(workspace, "select run_uuid, status from runs where name = 'compare-small'")
    children = f"select run_uuid from tags where key = 'mlflow.parentRunId' and value = '{run_id}'"
    names = mlflow_rows(workspace, f"select name from runs where run_uuid in ({children}) order by name")
    assert names == [("small-grpo-s3",), (SECOND,)]
    assert status == "FINISHED"
    keys = {key for (key,) in mlflow_rows(workspace, f"select key from metrics where run_uuid = '{run_id}'")}
    assert {"compare/test/grpo", "compare/gain/rloo", "compare/models/rloo"} <= keys
    assert mlflow_rows(workspace, "select name from runs where status = 'RUNNING'") == []
