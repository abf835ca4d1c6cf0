"""Whole runs, without Prefect, killed by SIGKILL: they end as if they had not been, and MLflow was told everything once."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from configs.disk.files import JOURNAL, OF_PROCESS, Journal, digest_json, read_manifest
from configs.schema.config import Config
from grpo_train.methods.offline_best_of_n import ImitationTrainer
from grpo_train.updating.learner import Learner
from reward_training.reward_models.trainer import PackedRewardTrainer
from tasks.runs.run_file import read_run
from tests.tasks.running.kills import KILLED, arm, in_child
from tests.tasks.stage_kit import tiny
from tests.tasks.test_prefect_tasks import ONE_ROUND, whole

NUM_KILLS = 50


def nothing() -> None:
    """No trap."""


def workspace(root: Path, empty_store: Path) -> Path:
    root.mkdir()
    shutil.copy(empty_store, root / "mlflow.db")
    return root


def go_on(root: Path, config: Config, trap: Callable[[], None] = nothing) -> Callable[[], None]:
    """`regroup run` from wherever it was, for a child."""

    def work() -> None:
        os.chdir(root)
        trap()
        whole(root, config)

    return work


def left_behind(root: Path) -> dict[str, object]:
    """All that two runs of one configuration have in common: digests of files, and journals without what tells of the process."""
    found: dict[str, object] = {}
    for path in sorted((root / "runs" / "tiny").rglob("manifest.json")):
        manifest = read_manifest(path.parent)
        assert manifest is not None
        lines = Journal(path.parent / JOURNAL).read()
        found[manifest.stage, manifest.round] = (
            {name: value for name, value in manifest.outputs.items() if name != JOURNAL},
            [(line.key, line.step, line.value) for line in lines if not line.key.startswith(OF_PROCESS)],
        )
    return found


def assert_told_once(root: Path) -> None:
    """No run of MLflow is RUNNING, and in none stands a step of a metric twice."""
    with sqlite3.connect(root / "mlflow.db") as database:
        assert database.execute("select name from runs where status = 'RUNNING'").fetchall() == []
        twice = "select run_uuid, key, step from metrics group by run_uuid, key, step having count(*) > 1"
        assert database.execute(twice).fetchall() == []
        told = "select count(*) from runs where lifecycle_stage = 'active' and name = 'policy'"
        assert database.execute(told).fetchone() == (len(list((root / "runs" / "tiny").glob("round_*/policy"))),)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Callable[[Config], dict[str, object]]:
    """What a run of a configuration ends with where nobody kills it."""

    def outcome(config: Config) -> dict[str, object]:
        root = workspace(tmp_path_factory.mktemp("undisturbed") / "root", empty_store)
        assert in_child(go_on(root, config)) == 0
        return left_behind(root)

    return outcome


def test_a_run_killed_in_both_trainings_ends_as_if_it_had_not_been(
    tmp_path: Path, empty_store: Path, undisturbed: Callable[[Config], dict[str, object]]
) -> None:
    root, config = (
        workspace(tmp_path / "root", empty_store),
        tiny(*ONE_ROUND, "grpo_config.max_updates=4", "curriculum.kind=band"),
    )
    traps = [lambda: arm(PackedRewardTrainer, "_save_checkpoint", 2), lambda: arm(Learner, "update", 3, "after")]
    for trap in traps:
        assert in_child(go_on(root, config, trap)) == KILLED
    assert in_child(go_on(root, config)) == 0
    assert left_behind(root) == undisturbed(config)
    assert_told_once(root)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_run_whose_rounds_start_anew_and_that_is_killed_in_the_second_ends_as_if_it_had_not_been(
    tmp_path: Path, empty_store: Path, undisturbed: Callable[[Config], dict[str, object]]
) -> None:
    """And in the second half of its cold start before."""
    anew = ("rounds=2", "grpo_config.max_updates=4", "curriculum.kind=band", "policy.start_from=given")
    cold = "cold_start={own_samples: {num_problems: 16, group_size: 2}, learning_rate: 1.0e-3, batch_size: 3}"
    root, config = workspace(tmp_path / "root", empty_store), tiny(*ONE_ROUND, *anew, cold)
    assert in_child(go_on(root, config, lambda: arm(ImitationTrainer, "_save_checkpoint", 2, "after"))) == KILLED
    assert in_child(go_on(root, config, lambda: arm(Learner, "update", 7, "after"))) == KILLED  # the third of round 2
    assert in_child(go_on(root, config)) == 0
    assert left_behind(root) == undisturbed(config)
    assert_told_once(root)
    manifests = [read_manifest(root / "runs" / "tiny" / f"round_00{index}" / "policy") for index in (1, 2)]
    inputs = [manifest.inputs for manifest in manifests if manifest is not None]
    file = read_run(root, "tiny")
    given, before = file.given_policy, file.before_cold_start
    assert given is not None
    assert before is not None
    assert given.id != before.id
    # the policy of round 1 was promoted, and round 2 has nothing of it but its pairs
    assert [each["policy"] for each in inputs] == [given.id, given.id]
    assert [each["curriculum"] for each in inputs] == [digest_json(None), digest_json(None)]
    assert [each["initial_policy"] for each in inputs] == [given.id, given.id]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_runs_of_three_rounds_killed_fifty_times_at_random_end_as_if_they_had_not_been(
    tmp_path: Path, empty_store: Path, undisturbed: Callable[[Config], dict[str, object]]
) -> None:
    """As often as a run gets through, another one is begun, until fifty children were killed."""
    more = ("rounds=3", "regeneration.num_problems=24", "grpo_config.save_steps=1")
    config = tiny(*more, "grpo_config.response_cache.share=0.5", "grpo_config.refill=1", "curriculum.kind=band")
    expected, draw = undisturbed(config), random.Random(0)
    kills = num_runs = 0
    while kills < NUM_KILLS:
        root = workspace(tmp_path / f"root-{num_runs}", empty_store)
        num_runs += 1
        while kills < NUM_KILLS:
            code = in_child(go_on(root, config), kill_after_s=draw.uniform(0.3, 4.0))
            assert code in (0, KILLED)
            if code == 0:
                break
            kills += 1
        assert in_child(go_on(root, config)) == 0
        assert left_behind(root) == expected
        assert_told_once(root)
