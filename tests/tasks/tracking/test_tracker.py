"""MLflow on a real SQLite store: each step once, every file with its digest, nothing left RUNNING, and no server needed."""

from __future__ import annotations

import json
import math
import shutil
import socket
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from configs.disk.files import digest, read_manifest
from tasks.running.run import Run
from tasks.running.stage import Context, run_stage
from tasks.runs import facts
from tasks.runs.facts import ModelFact, Outcome
from tasks.tracking import outbox
from tests.tasks.stage_kit import LetterSpec, ResumableSpec, open_in, tiny, write_letters, write_resumable_letters
from tests.tasks.tracking.kit import (
    THREE_STEPS,
    all_runs,
    by_key,
    client,
    close_round,
    policy_folder,
    policy_stage,
    rows,
    store,
    whole_run,
)


@pytest.fixture(autouse=True)
def _tables(tmp_path: Path, empty_store: Path) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")


def test_a_run_is_a_tree_of_run_round_and_stage(tmp_path: Path) -> None:
    whole_run(open_in(tmp_path))
    tree = by_key(tmp_path)
    assert sorted(tree) == ["", "round_001", "round_001/policy"]
    assert tree["round_001"].data.tags["mlflow.parentRunId"] == tree[""].info.run_id
    assert tree["round_001/policy"].data.tags["mlflow.parentRunId"] == tree["round_001"].info.run_id
    assert {run.info.status for run in tree.values()} == {"FINISHED"}
    assert tree[""].data.params["grpo_config.group_size"] == "4"
    assert not [key for key in tree[""].data.params if key.startswith(("rounds", "tracking", "run."))]
    assert tree["round_001/policy"].data.params["grpo_config.max_updates"] == "6"
    [dataset] = tree["round_001/policy"].inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("train", "d" * 36)


def test_sending_again_adds_no_rows(tmp_path: Path) -> None:
    whole_run(open_in(tmp_path))
    whole_run(open_in(tmp_path))
    tree = by_key(tmp_path)
    assert rows(tmp_path, tree["round_001/policy"]) == THREE_STEPS
    assert rows(tmp_path, tree[""]) == Counter({("promotion/gain", 1, 0.25): 1})


def test_lines_sent_before_a_kill_could_be_noted_are_not_doubled(tmp_path: Path) -> None:
    """A kill between sending lines and writing down that they were sent: they are sent a second time."""
    run = open_in(tmp_path)
    whole_run(run)
    path = policy_folder(run) / outbox.TRACKING
    record = facts.load(path, outbox.StageTracking)
    assert record is not None
    facts.save(path, record.model_copy(update={"journal_offset": 0, "rollouts_offset": 0, "files": [], "done": False}))
    open_in(tmp_path).tracking.start()
    assert rows(tmp_path, by_key(tmp_path)["round_001/policy"]) == THREE_STEPS
    assert len(client(tmp_path).search_model_versions("name='tiny-policy'")) == 1


@pytest.mark.parametrize("noted", [True, False])
def test_a_kill_right_after_the_manifest_loses_nothing(tmp_path: Path, noted: bool) -> None:
    """The stage is done and is not run again, but nobody told MLflow so, or of it at all."""
    run = open_in(tmp_path)
    run.tracking.start()
    run.tracking.end_stage = lambda *_, **__: None  # type: ignore[method-assign]
    policy_stage(run)
    if not noted:
        (policy_folder(run) / outbox.TRACKING).unlink()
    whole_run(open_in(tmp_path))
    policy = by_key(tmp_path)["round_001/policy"]
    assert policy.info.status == "FINISHED"
    assert rows(tmp_path, policy) == THREE_STEPS
    assert client(tmp_path).get_registered_model("tiny-policy").aliases == {"champion": 1}
    artifacts = {item.path for item in client(tmp_path).list_artifacts(policy.info.run_id)}
    assert {"result.json", "model", "manifest.json"} <= artifacts


def test_every_file_of_a_manifest_is_an_artifact_with_the_same_digest(tmp_path: Path) -> None:
    run = open_in(tmp_path)
    whole_run(run)
    manifest = read_manifest(policy_folder(run))
    assert manifest is not None
    run_id = by_key(tmp_path)["round_001/policy"].info.run_id
    assert manifest.mlflow_run_id == run_id
    for name, value in manifest.outputs.items():
        assert digest(Path(client(tmp_path).download_artifacts(run_id, name))) == value
    weights = Path("model") / "weights.safetensors"
    here = policy_folder(run) / weights
    artifacts = Path(by_key(tmp_path)["round_001/policy"].info.artifact_uri.removeprefix("file://"))
    assert (artifacts / weights).samefile(here), "linked, not copied"


def test_tables_hold_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store(tmp_path))  # load_table looks there
    whole_run(open_in(tmp_path))
    run_id = by_key(tmp_path)["round_001/policy"].info.run_id
    paths = [f"completions/{step:06d}.json" for step in (1, 2, 3)]
    tag = by_key(tmp_path)["round_001/policy"].data.tags["mlflow.loggedArtifacts"]
    assert json.loads(tag) == [{"path": path, "type": "table"} for path in paths]
    experiment = client(tmp_path).get_experiment_by_name("regroup").experiment_id
    for step, path in enumerate(paths, start=1):
        table = client(tmp_path).load_table(experiment, path, run_ids=[run_id])
        [row] = table.to_dict("records")
        assert math.isnan(row.pop("reward/judge")), "unscored"
        assert row == {"step": step, "text": "a", "reward/correct": 1, "advantage": 0.5}


def test_aliases_follow_the_decision(tmp_path: Path) -> None:
    run = open_in(tmp_path)
    run.tracking.start()
    given = ModelFact(name="tiny-policy", folder="policy", alias="champion", source=str(given_model(tmp_path)))
    problems = run.folder / "problems"
    run_stage(run, LetterSpec(config=tiny(), round=0), problems, write_letters, outcome=lambda: Outcome(model=given))
    policy_stage(run)
    known = client(tmp_path)
    versions = {
        v.tags["regroup.key"].partition("/")[2]: v.version for v in known.search_model_versions("name='tiny-policy'")
    }
    assert known.get_registered_model("tiny-policy").aliases == {
        "champion": versions["problems"],
        "challenger": versions["round_001/policy"],
    }
    close_round(run, champion=1)
    assert known.get_registered_model("tiny-policy").aliases == {
        "champion": versions["round_001/policy"],
        "previous": versions["problems"],
    }
    source = known.get_model_version_by_alias("tiny-policy", "champion").source
    assert source == f"runs:/{by_key(tmp_path)['round_001/policy'].info.run_id}/model"


def given_model(root: Path) -> Path:
    folder = root / "models" / "given"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"g")
    return folder


def test_a_stage_that_was_killed_leaves_each_step_once_and_no_run_running(tmp_path: Path) -> None:
    class Killed(BaseException):
        """As if the process were gone: nobody tells MLflow."""

    def die() -> None:
        raise Killed

    run = open_in(tmp_path)
    run.tracking.start()
    run.tracking.end_stage = lambda *_, **__: None  # type: ignore[method-assign]
    with pytest.raises(Killed):
        policy_stage(run, steps=2, then=die)
    assert {run.info.status for run in all_runs(tmp_path)} == {"RUNNING"}
    resumed = open_in(tmp_path)
    resumed.tracking.start()
    status = {key: run.info.status for key, run in by_key(tmp_path).items()}
    assert status == {"": "RUNNING", "round_001": "KILLED", "round_001/policy": "KILLED"}
    policy_stage(resumed)
    resumed.tracking.finish("FINISHED")
    tree = by_key(tmp_path)
    assert rows(tmp_path, tree["round_001/policy"]) == THREE_STEPS
    assert {run.info.status for run in tree.values()} == {"FINISHED"}


def test_a_stage_that_goes_on_from_a_checkpoint_leaves_each_step_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps after the checkpoint are computed again, after MLflow was told of them. It shows what the journal holds."""
    monkeypatch.setattr("tasks.tracking.tracker.SYNC_EVERY_S", 0.0)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store(tmp_path))

    class Killed(BaseException):
        """As if the process were gone."""

    def die_after(step: int) -> None:
        if step == 3:
            raise Killed

    def attempt(run: Run, **options: Any) -> None:
        body = partial(write_resumable_letters, **options)
        run_stage(run, ResumableSpec(config=run.config, round=1), policy_folder(run), body)

    killed = open_in(tmp_path)
    killed.tracking.start()
    killed.tracking.end_stage = lambda *_, **__: None  # type: ignore[method-assign]
    with pytest.raises(Killed):
        attempt(killed, seconds=1.0, then=die_after)
    assert rows(tmp_path, by_key(tmp_path)["round_001/policy"])[("reward/mean", 3, 0.3)] == 1

    resumed = open_in(tmp_path)
    resumed.tracking.start()
    seen: list[int] = []
    attempt(resumed, seconds=2.0, then=seen.append)
    resumed.tracking.finish("FINISHED")
    assert seen == [3, 4, 5]
    policy = by_key(tmp_path)["round_001/policy"]
    means = {("reward/mean", step, step / 10): 1 for step in range(1, 6)}
    times = {("time/step", step, 1.0 if step <= 2 else 2.0): 1 for step in range(1, 6)}
    assert rows(tmp_path, policy) == Counter(means | times)
    table = client(tmp_path).load_table(
        policy.info.experiment_id, "completions/000003.json", run_ids=[policy.info.run_id]
    )
    assert table.to_dict("records") == [{"step": 3, "text": "written in 2.0 s"}]
    assert {run.info.status for run in all_runs(tmp_path)} == {"FINISHED"}


@pytest.mark.parametrize(("error", "status"), [(ValueError("broken"), "FAILED"), (KeyboardInterrupt(), "KILLED")])
def test_a_stage_that_raised_ends_its_run(tmp_path: Path, error: BaseException, status: str) -> None:
    def fail() -> None:
        raise error

    run = open_in(tmp_path)
    run.tracking.start()
    with pytest.raises(type(error)):
        policy_stage(run, then=fail)
    assert by_key(tmp_path)["round_001/policy"].info.status == status
    run.tracking.finish("FAILED")
    assert "RUNNING" not in {run.info.status for run in all_runs(tmp_path)}


def test_a_server_that_is_away_stops_nothing_and_is_told_later(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    warnings: list[str] = []
    away = open_in(tmp_path, uri=f"http://name:secret@127.0.0.1:{port}", warnings=warnings)
    whole_run(away)
    assert len(warnings) == 1
    assert f"MLflow at http://127.0.0.1:{port} cannot be told" in warnings[0]
    assert "secret" not in warnings[0]
    manifest = read_manifest(policy_folder(away))
    assert manifest is not None
    assert manifest.mlflow_run_id is None

    back = open_in(tmp_path, uri=store(tmp_path))
    back.tracking.start()
    back.tracking.finish("FINISHED")
    tree = by_key(tmp_path)
    assert rows(tmp_path, tree["round_001/policy"]) == THREE_STEPS
    assert rows(tmp_path, tree[""]) == Counter({("promotion/gain", 1, 0.25): 1})
    assert client(tmp_path).get_registered_model("tiny-policy").aliases == {"champion": 1}
    assert tree["round_001/policy"].info.start_time == manifest.started_ms
    assert {run.info.status for run in tree.values()} == {"FINISHED"}


def test_a_server_that_goes_away_in_the_middle_is_told_the_rest_later(tmp_path: Path) -> None:
    run = open_in(tmp_path)
    run.tracking.start()

    def lose_connection() -> None:
        def refuse(*_: object, **__: object) -> None:
            raise ConnectionError("gone")

        run.tracking.store.client.log_batch = refuse  # type: ignore[method-assign]

    policy_stage(run, then=lose_connection)
    assert by_key(tmp_path)["round_001/policy"].info.status == "RUNNING"
    later = open_in(tmp_path)
    later.tracking.start()
    close_round(later, champion=1)
    later.tracking.finish("FINISHED")
    tree = by_key(tmp_path)
    assert rows(tmp_path, tree["round_001/policy"]) == THREE_STEPS
    assert {run.info.status for run in tree.values()} == {"FINISHED"}


def test_a_lost_store_is_filled_again_from_the_files(tmp_path: Path, empty_store: Path) -> None:
    whole_run(open_in(tmp_path))
    shutil.copy(empty_store, tmp_path / "other.db")
    whole_run(open_in(tmp_path, uri=f"sqlite:///{tmp_path / 'other.db'}"))
    (tmp_path / "other.db").rename(tmp_path / "mlflow.db")
    assert rows(tmp_path, by_key(tmp_path)["round_001/policy"]) == THREE_STEPS


def test_summary_and_report_become_artifacts_of_the_parent_run(tmp_path: Path) -> None:
    run = open_in(tmp_path)
    (run.folder / "summary.json").write_text("{}")
    whole_run(run)
    parent = by_key(tmp_path)[""].info.run_id
    assert {"run.json", "summary.json"} <= {item.path for item in client(tmp_path).list_artifacts(parent)}


def test_a_step_is_sent_while_the_stage_works(tmp_path: Path) -> None:
    seen = []

    def look(spec: LetterSpec, out_dir: Path, context: Context) -> None:
        write_letters(spec, out_dir, context)
        seen.append(rows(tmp_path, by_key(tmp_path)["round_001/policy"]))

    run = open_in(tmp_path)
    run.tracking.start()
    run_stage(run, LetterSpec(config=tiny(), round=1), policy_folder(run), look)
    assert seen[0][("reward/mean", 1, 0.1)] == 1
