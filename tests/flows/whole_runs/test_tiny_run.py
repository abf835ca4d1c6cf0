"""The whole loop through real Prefect and MLflow, once; each test looks at what it left."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pytest
from mlflow import MlflowClient
from transformers import AutoModelForCausalLM, AutoTokenizer

from configs.disk.files import digest, read_manifest
from flows.cli import main
from grpo_train.policies.model import policy_id
from tasks.runs.workspace import workspace_lock
from tests.flows.whole_runs.tiny_run import Call, regroup, servers_on_record, summary_of
from tests.paths import TINY

pytestmark = [pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore::DeprecationWarning")]

SUMMARY_FIELDS = {"run", "status", "champion", "parent_run", "mlflow", "prefect", "rounds", "seconds", "rollbacks"}
ROUND_FIELDS = {"round", "policy_id", "promoted", "reward_models", "evaluation", "advantage_share", "seconds"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Call:
    """The finished call; its workspace is looked at by every test."""
    call = regroup(tmp_path_factory.mktemp("tiny"), "run", str(TINY))
    assert call.process.returncode == 0, call.err
    return call


@pytest.fixture
def run(tiny: Call) -> Path:
    return tiny.workspace / "runs" / "tiny"


@pytest.fixture
def summary(tiny: Call) -> dict[str, Any]:
    return summary_of(tiny.workspace)


@pytest.fixture
def client(tiny: Call) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{tiny.workspace / 'mlflow.db'}")


def test_the_last_line_is_the_path_of_the_summary(tiny: Call, run: Path) -> None:
    assert tiny.out.splitlines()[-1] == str(run / "summary.json")


def test_the_table_of_rounds_fits_80_columns_and_says_how_to_try_the_result(tiny: Call) -> None:
    assert max(map(len, tiny.out.splitlines()[:-1])) <= 80
    assert "regroup sample tiny" in tiny.out
    assert "runs/tiny/report.html" in tiny.out


def test_libraries_are_quiet_and_the_log_file_has_the_story(tiny: Call, run: Path) -> None:
    for noise in ("Traceback", "INFO", "it/s", "prefect.", "alembic"):
        assert noise not in tiny.err
    assert "round 2 · policy: started" in (run / "log.txt").read_text()


def test_the_summary_has_the_promised_fields(summary: dict[str, Any]) -> None:
    assert summary.keys() == SUMMARY_FIELDS
    assert (summary["run"], summary["status"], summary["parent_run"]) == ("tiny", "done", None)
    assert 0 < summary["seconds"]["bookkeeping"] < summary["seconds"]["whole"]
    assert summary["champion"].keys() == {"policy_id", "round", "path"}
    assert summary["mlflow"].keys() == {"tracking_uri", "experiment_id", "run_id"}
    assert [row["round"] for row in summary["rounds"]] == [0, 1, 2]
    for row in summary["rounds"]:
        assert row.keys() == ROUND_FIELDS
        assert row["evaluation"]["test/greedy_accuracy"].keys() == {"estimate", "low", "high", "n"}
        assert all(model.keys() == {"id", "accuracy", "accepted"} for model in row["reward_models"].values())


def test_each_round_trains_a_reward_model_on_at_least_16_pairs(run: Path) -> None:
    for round_index in (1, 2):
        folder = run / f"round_00{round_index}" / "reward_model" / "taste"
        report = json.loads((folder / "report.json").read_bytes())
        assert report["num_train_pairs"] >= 16
        assert (folder / "model" / "model.safetensors").exists()


def test_each_round_makes_at_least_4_updates_with_a_gradient(run: Path) -> None:
    for round_index in (1, 2):
        lines = (run / f"round_00{round_index}" / "policy" / "journal.jsonl").read_text().splitlines()
        values = [json.loads(line) for line in lines]
        norms = [line["value"] for line in values if line["key"] == "policy/grad_norm"]
        assert sum(norm > 0 for norm in norms) >= 4


def test_policies_of_all_rounds_differ_and_the_champion_is_the_last_promoted(
    tiny: Call, summary: dict[str, Any]
) -> None:
    rows = summary["rounds"]
    assert len({row["policy_id"] for row in rows}) == 3
    assert [row["promoted"] for row in rows] == [False, True, True]  # promotion.rule is always
    assert summary["champion"]["round"] == 2
    assert (
        summary["champion"]["policy_id"]
        == rows[2]["policy_id"]
        == policy_id(tiny.workspace / summary["champion"]["path"])
    )


def test_every_file_of_every_manifest_is_in_mlflow_with_the_same_digest(run: Path, client: MlflowClient) -> None:
    num_files = 0
    for path in run.rglob("manifest.json"):
        manifest = read_manifest(path.parent)
        assert manifest is not None
        assert manifest.mlflow_run_id is not None
        artifacts = Path(unquote(urlparse(client.get_run(manifest.mlflow_run_id).info.artifact_uri).path))
        for name, wanted in manifest.outputs.items():
            assert digest(artifacts / name) == wanted, f"{path.parent}/{name}"
            num_files += 1
    assert num_files > 50


def test_no_run_is_left_running_and_the_tree_has_three_levels(summary: dict[str, Any], client: MlflowClient) -> None:
    runs = client.search_runs([summary["mlflow"]["experiment_id"]], max_results=1000)
    assert {run.info.status for run in runs} == {"FINISHED"}
    parents = {run.info.run_id: run.data.tags.get("mlflow.parentRunId") for run in runs}
    rounds = [run_id for run_id, parent in parents.items() if parent == summary["mlflow"]["run_id"]]
    assert parents[summary["mlflow"]["run_id"]] is None
    assert sum(parent in rounds for parent in parents.values()) == 2 + 5 + 5  # stages of rounds 0, 1, 2


def test_mlflow_holds_each_metric_step_once(run: Path, client: MlflowClient) -> None:
    manifest = read_manifest(run / "round_001" / "policy")
    assert manifest is not None
    steps = [metric.step for metric in client.get_metric_history(str(manifest.mlflow_run_id), "reward/mean")]
    assert sorted(steps) == sorted(set(steps))
    assert len(steps) >= 4


def test_models_are_registered_and_the_alias_mirrors_the_champion(
    summary: dict[str, Any], client: MlflowClient
) -> None:
    champion = client.get_model_version_by_alias("tiny-policy", "champion")
    assert champion.tags["regroup.policy_id"] == summary["champion"]["policy_id"]
    assert client.search_model_versions("name='tiny-reward-taste'")


def test_prefect_shows_the_run_its_rounds_and_its_stages_as_completed(tiny: Call) -> None:
    with sqlite3.connect(tiny.workspace / ".prefect" / "prefect.db") as database:
        flows = database.execute("select name, state_type from flow_run order by created").fetchall()
        tasks = database.execute("select name, state_type from task_run").fetchall()
        artifacts = {key for (key,) in database.execute("select key from artifact")}
    assert flows == [("tiny", "COMPLETED"), *((f"round-{number}", "COMPLETED") for number in (0, 1, 2))]
    assert {state for _, state in tasks} == {"COMPLETED"}
    assert {"tiny-rounds", "tiny-mlflow"} <= artifacts


def test_no_server_is_left_behind(tiny: Call) -> None:
    assert servers_on_record(tiny.workspace) == []


def test_a_second_call_finds_the_finished_run_within_30_s(tiny: Call, run: Path) -> None:
    before = (run / "summary.json").read_bytes()
    start = time.monotonic()
    again = regroup(tiny.workspace, "run", str(TINY))
    assert time.monotonic() - start < 30
    assert again.process.returncode == 0
    assert "finished already" in again.err
    assert "Prefect" not in again.err
    assert again.out == tiny.out
    assert (run / "summary.json").read_bytes() == before


def test_a_changed_configuration_is_refused_with_the_field_named(tiny: Call) -> None:
    call = regroup(tiny.workspace, "run", str(TINY), "--set", "grpo_config.learning_rate=0.5")
    assert call.process.returncode == 2
    assert "grpo_config.learning_rate is 0.5, was 0.001" in call.err
    assert "--run" in call.err


def test_a_held_workspace_ends_3_and_names_the_holder(tiny: Call) -> None:
    with workspace_lock(tiny.workspace, "other"):
        call = regroup(tiny.workspace, "run", str(TINY), "--run", "another")
    assert call.process.returncode == 3
    assert "held by run 'other'" in call.err
    assert not (tiny.workspace / "runs" / "another").exists()


def test_status_shows_the_run_and_the_champion(
    tiny: Call, summary: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tiny.workspace)
    assert main(["status"]) == 0
    text = capsys.readouterr().out
    assert "done" in text
    assert f"champion   {summary['champion']['policy_id'][:12]} from run tiny, round 2" in text
    assert "held by    nobody" in text


def test_the_exported_champion_loads_with_from_pretrained(
    tiny: Call, summary: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tiny.workspace)
    assert main(["export", "tiny", "exported"]) == 0
    AutoModelForCausalLM.from_pretrained("exported")
    AutoTokenizer.from_pretrained("exported")
    assert policy_id(Path("exported")) == summary["champion"]["policy_id"]
    assert main(["export", "tiny", "exported"]) == 2
    assert "exists already" in capsys.readouterr().err


def test_sample_prints_what_the_champion_answers_and_greedy_repeats_it(
    tiny: Call, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tiny.workspace)
    answers = []
    for _ in range(2):
        assert main(["sample", "tiny", "2 + 3 ="]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0].strip()
    assert answers[0] == answers[1]


def test_evaluation_alone_prints_each_estimate(tiny: Call) -> None:
    call = regroup(tiny.workspace, "evaluate", str(TINY))
    assert call.process.returncode == 0, call.err
    assert "greedy_accuracy" in call.out
    assert "n = 16" in call.out
