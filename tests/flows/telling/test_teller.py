"""Flows of Prefect's own engine beside a server that goes away: the work goes on, and the server learns all of it later."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from configs.errors import StageStopped
from flows.telling import teller
from flows.telling.leftovers import what_prefect_lacks
from tests.flows.telling.fake_prefect import FakePrefect

Act = Callable[[str], None]


@task(name="train", task_run_name="train-{round_index}", cache_policy=NO_CACHE, persist_result=False)
def train(round_index: int) -> int:
    ACT[0](f"train-{round_index}")
    return round_index


@flow(name="round", flow_run_name="round-{round_index}")
def one_round(round_index: int) -> None:
    train(round_index)


@flow(name="align", flow_run_name="tiny")
def whole() -> str:
    for round_index in range(3):
        one_round(round_index)
    return "done"


ACT: list[Act] = [lambda _: None]


@pytest.fixture
def warnings() -> list[str]:
    return []


def run_told(root: Path, warnings: list[str], act: Act) -> str:
    ACT[0] = act
    teller.begin(root, warnings.append)
    try:
        return str(whole())
    finally:
        teller.end()


ALL_DONE = dict.fromkeys(("tiny", "round-0", "round-1", "round-2"), "COMPLETED")
TASK_STATES = [f"prefect.task-run.{state}" for state in ("Running", "Completed")]


def assert_all_is_told(fake: FakePrefect) -> None:
    """Each round is a subflow under the run, with its task under that, and the ids are the server's."""
    assert fake.states() == ALL_DONE
    runs = {run["name"]: run for run in fake.flow_runs()}
    parents = [fake.objects[f"/task_runs/{runs[f'round-{i}']['parent_task_run_id']}"] for i in range(3)]
    assert {parent["flow_run_id"] for parent in parents} == {runs["tiny"]["id"]}
    for round_index in range(3):
        events = [
            event for event in fake.events() if event["resource"]["prefect.resource.name"] == f"train-{round_index}"
        ]
        assert [event["event"] for event in events] == TASK_STATES
        related = {resource["prefect.resource.id"] for event in events for resource in event["related"]}
        assert f"prefect.flow-run.{runs[f'round-{round_index}']['id']}" in related


def test_all_that_a_run_does_arrives_in_order(fake: FakePrefect, tmp_path: Path, warnings: list[str]) -> None:
    assert run_told(tmp_path, warnings, lambda _: None) == "done"
    assert_all_is_told(fake)
    assert warnings == []
    assert what_prefect_lacks(tmp_path) is None
    assert list((tmp_path / ".prefect" / "flow-runs").iterdir()) == []


def test_two_flows_of_one_process_are_told_one_after_the_other(
    fake: FakePrefect, tmp_path: Path, warnings: list[str]
) -> None:
    """The second one refers to a flow that the process made up an answer for, since it was telling of the first."""

    @flow(name="another")
    def other() -> str:
        return str(whole())

    ACT[0] = lambda _: None
    teller.begin(tmp_path, warnings.append)
    try:
        assert [whole(), whole(), other()] == ["done"] * 3
    finally:
        teller.end()
    assert warnings == []
    assert len(fake.flow_runs()) == 13  # three times a run and its three rounds, and one around the last
    assert {run["state_type"] for run in fake.flow_runs()} == {"COMPLETED"}
    assert list((tmp_path / ".prefect" / "flow-runs").iterdir()) == []


def test_a_server_that_comes_back_learns_all_of_it(fake: FakePrefect, tmp_path: Path, warnings: list[str]) -> None:
    acted: list[float] = []

    def act(name: str) -> None:
        acted.append(time.monotonic())
        if name == "train-0":
            fake.stop()
        if name == "train-2":
            assert "COMPLETED" not in fake.states().values()
            fake.start()

    assert run_told(tmp_path, warnings, act) == "done"
    assert_all_is_told(fake)
    assert len(warnings) == 1
    assert "the work goes on, and Prefect is told of it later" in warnings[0]
    assert acted[2] - acted[0] < 20.0  # Prefect's own client would have waited a minute at each state


def test_what_a_server_never_heard_is_kept_and_told_by_the_next_process(
    fake: FakePrefect, tmp_path: Path, warnings: list[str]
) -> None:
    assert run_told(tmp_path, warnings, lambda name: fake.stop() if name == "train-1" else None) == "done"
    lacking = what_prefect_lacks(tmp_path)
    assert lacking == f"{fake.api_url} lacks the end of tiny; the next run in this folder tells it"
    fake.start()
    forget_owner(tmp_path)
    teller.begin(tmp_path, warnings.append)
    teller.settle()
    teller.end()
    assert_all_is_told(fake)
    assert what_prefect_lacks(tmp_path) is None


def forget_owner(root: Path) -> None:
    """As if the process that wrote the file had ended."""
    (path,) = (root / ".prefect" / "flow-runs").glob("*.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"owner": {"pid": 2**22 + 1, "started": 0.0}}))


@pytest.mark.parametrize("status", [401, 429, 503])
def test_a_server_that_cannot_take_it_now_is_away(
    fake: FakePrefect, tmp_path: Path, warnings: list[str], status: int
) -> None:
    def act(name: str) -> None:
        if name == "train-0":
            fake.fails_at[""] = status
        if name == "train-2":
            fake.fails_at.clear()

    assert run_told(tmp_path, warnings, act) == "done"
    assert_all_is_told(fake)
    assert len(warnings) == 1


def test_a_flow_run_that_somebody_deleted_ends_nothing(fake: FakePrefect, tmp_path: Path, warnings: list[str]) -> None:
    def act(name: str) -> None:
        if name == "train-1":
            fake.fails_at["/flow_runs/"] = 404

    assert run_told(tmp_path, warnings, act) == "done"
    assert warnings == []
    assert what_prefect_lacks(tmp_path) is None


def test_a_run_that_fails_while_the_server_is_away_is_told_as_failed(
    fake: FakePrefect, tmp_path: Path, warnings: list[str]
) -> None:
    def act(name: str) -> None:
        if name == "train-1":
            fake.stop()
            raise StageStopped("a stop")

    with pytest.raises(StageStopped):
        run_told(tmp_path, warnings, act)
    fake.start()
    forget_owner(tmp_path)
    teller.begin(tmp_path, warnings.append)
    teller.settle()
    teller.end()
    assert fake.states() == {"tiny": "FAILED", "round-0": "COMPLETED", "round-1": "FAILED"}


def test_a_run_begins_only_where_the_server_answers(fake: FakePrefect, tmp_path: Path, warnings: list[str]) -> None:
    from httpx import HTTPError

    fake.stop()
    with pytest.raises((HTTPError, RuntimeError)):
        run_told(tmp_path, warnings, lambda _: None)
