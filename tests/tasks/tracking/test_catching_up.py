"""What earlier runs could not send, and what was deleted in MLflow or made again, is put right by the next run."""

from __future__ import annotations

import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from tasks.running.run import Run
from tasks.running.stage import run_stage
from tasks.runs import facts
from tasks.tracking.outbox import TRACKING, RunTracking
from tests.tasks.stage_kit import LetterSpec, open_in, tiny, write_letters
from tests.tasks.tracking.kit import (
    THREE_STEPS,
    all_runs,
    by_key,
    client,
    close_round,
    policy_folder,
    policy_stage,
    rows,
    whole_run,
)

AWAY = "http://127.0.0.1:9"


def other(root: Path, name: str = "other", *overrides: str) -> Run:
    return open_in(root, tiny(f"run.name={name}", *overrides))


def start_and_end(run: Run) -> None:
    run.tracking.start()
    run.tracking.finish("FINISHED")


def of_run(root: Path, name: str, experiment: str = "regroup") -> dict[str, str]:
    """{key: status} of the runs of that name."""
    known = client(root)
    found = known.search_runs(
        [known.get_experiment_by_name(experiment).experiment_id], f"tags.`regroup.run` = '{name}'"
    )
    return {run.data.tags["regroup.key"].partition("/")[2]: run.info.status for run in found}


def told_twice(root: Path) -> list[tuple[str, str, int]]:
    with sqlite3.connect(root / "mlflow.db") as database:
        return database.execute(
            "select run_uuid, key, step from metrics group by run_uuid, key, step having count(*) > 1"
        ).fetchall()


def test_a_run_that_could_not_reach_mlflow_is_sent_by_the_next(root: Path) -> None:
    away = open_in(root, uri=AWAY)
    whole_run(away)
    assert str(away.tracking.lack) == "3 runs, 6 values of metrics, 8 files and 1 registered model of run tiny"
    start_and_end(other(root))
    assert of_run(root, "tiny") == {"": "FINISHED", "round_001": "FINISHED", "round_001/policy": "FINISHED"}
    found = client(root).search_runs(["1"], "tags.`regroup.run` = 'tiny' and run_name = 'policy'")
    assert rows(root, found[0]) == THREE_STEPS
    assert open_in(root).tracking.lack is None
    record = facts.load(away.folder / TRACKING, RunTracking)
    assert record is not None
    assert (record.status, record.complete) == ("FINISHED", True)


def test_an_earlier_run_that_failed_or_was_killed_is_sent_as_such(root: Path) -> None:
    failed, killed = other(root, "failed"), other(root, "killed", "tracking.experiment=elsewhere")
    for run in (failed, killed):
        run.tracking.store.uri = AWAY
        run.tracking.start()
    policy_stage(failed)
    failed.tracking.finish("FAILED")
    killed.tracking.end_stage = lambda *_, **__: None  # type: ignore[method-assign]
    policy_stage(killed)
    start_and_end(open_in(root))
    assert of_run(root, "failed") == {"": "FAILED", "round_001": "FAILED", "round_001/policy": "FINISHED"}
    assert of_run(root, "killed", "elsewhere") == {"": "KILLED", "round_001": "KILLED", "round_001/policy": "KILLED"}


def test_an_earlier_run_that_was_deleted_in_mlflow_stays_deleted(root: Path) -> None:
    run = open_in(root)
    whole_run(run)
    record = facts.load(run.folder / TRACKING, RunTracking)
    assert record is not None
    facts.save(run.folder / TRACKING, record.model_copy(update={"complete": False}))
    client(root).delete_run(by_key(root)[""].info.run_id)
    start_and_end(other(root))
    assert "" not in of_run(root, "tiny")
    assert open_in(root).tracking._earlier() == []


def test_a_parent_that_was_deleted_comes_back_with_its_rounds(root: Path) -> None:
    run = open_in(root)
    run.tracking.start()
    policy_stage(run)
    for found in all_runs(root):
        client(root).delete_run(found.info.run_id)
    close_round(run, champion=1)
    run.tracking.finish("FINISHED")
    tree = by_key(root)
    assert sorted(tree) == ["", "round_001", "round_001/policy"]
    assert tree["round_001"].data.tags["mlflow.parentRunId"] == tree[""].info.run_id
    assert rows(root, tree["round_001/policy"]) == THREE_STEPS
    assert rows(root, tree[""]) == Counter({("promotion/gain", 1, 0.25): 1})


def test_under_a_new_parent_the_rounds_of_the_old_one_hang(root: Path) -> None:
    """The old one is gone for good, as after `mlflow gc`."""
    run = open_in(root)
    whole_run(run)
    gone = by_key(root)[""].info.run_id
    with sqlite3.connect(root / "mlflow.db") as database:
        for table in ("metrics", "latest_metrics", "params", "tags", "runs"):
            database.execute(f"delete from {table} where run_uuid = ?", (gone,))
    whole_run(open_in(root))
    tree = by_key(root)
    assert sorted(tree) == ["", "round_001", "round_001/policy"]
    assert tree[""].info.run_id != gone
    assert tree["round_001"].data.tags["mlflow.parentRunId"] == tree[""].info.run_id
    assert rows(root, tree[""]) == Counter({("promotion/gain", 1, 0.25): 1})
    assert rows(root, tree["round_001/policy"]) == THREE_STEPS


def test_a_round_that_is_closed_again_has_its_metrics_once(root: Path) -> None:
    """The parent and the round had both values of each metric, one beside the other."""
    run = open_in(root)
    whole_run(run)
    before = by_key(root)
    again = open_in(root)
    again.tracking.start()
    spec = LetterSpec(config=tiny("grpo_config.max_updates=5"), round=1)
    run_stage(again, spec, policy_folder(again), write_letters)
    close_round(again, champion=1, gain=0.5, ended_ms=1_700_000_001_000)
    again.tracking.finish("FINISHED")
    tree = by_key(root)
    assert sorted(tree) == ["", "round_001", "round_001/policy"]
    for key in ("", "round_001"):
        assert rows(root, tree[key]) == Counter({("promotion/gain", 1, 0.5): 1})
        assert tree[key].info.run_id != before[key].info.run_id
    assert tree["round_001"].data.tags["mlflow.parentRunId"] == tree[""].info.run_id
    assert tree["round_001/policy"].data.tags["mlflow.parentRunId"] == tree["round_001"].info.run_id
    assert rows(root, tree["round_001/policy"]) == THREE_STEPS
    assert told_twice(root) == []
    start_and_end(open_in(root))
    assert {key: run.info.run_id for key, run in by_key(root).items()} == {
        key: run.info.run_id for key, run in tree.items()
    }, "and what was replaced does not come back"


@pytest.mark.parametrize("status", ["FINISHED", "KILLED"])
def test_a_run_of_which_mlflow_has_everything_lacks_nothing(root: Path, status: facts.Status) -> None:
    run = open_in(root)
    whole_run(run)
    run.tracking.finish(status)
    assert run.tracking.lack is None
    assert other(root).tracking._earlier() == []


def test_a_call_beside_a_server_that_is_away_knows_the_run_that_an_earlier_one_made(root: Path) -> None:
    first = open_in(root)
    whole_run(first)
    away = open_in(root, uri=AWAY).tracking
    assert away.run_id == first.tracking.run_id == by_key(root)[""].info.run_id
    assert away.run_url is None  # the experiment is not known
    assert other(root).tracking.run_id is None
