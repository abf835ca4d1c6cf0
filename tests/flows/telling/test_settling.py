"""Flow runs whose process was killed."""

from __future__ import annotations

from pathlib import Path
from threading import Event, Timer

import pytest

from flows.prefect_server import identity_of
from flows.telling.leftovers import Leftover, file_of, keep, what_prefect_lacks
from flows.telling.messages import Message
from flows.telling.settling import ENDED, FORGOTTEN_AFTER_S, settle, settle_within
from tests.flows.telling.fake_prefect import FakePrefect

ONCE = Event()
"""for a caller that ends after one try"""
ONCE.set()
GONE = {"pid": 2**22 + 1, "started": 0.0}
ROOT, SUBFLOW, TASK, OTHER = (f"00000000-0000-4000-8000-00000000000{i}" for i in range(4))


def leftover(owner: dict[str, float] = GONE, messages: list[Message] | None = None) -> Leftover:
    return Leftover(flow_run=ROOT, run="tiny", api_url="http://a/api", owner=owner, messages=messages or [])


def run(fake: FakePrefect, path: str, state: str) -> None:
    run_id = path.rpartition("/")[2]
    fake.objects[path] = {"id": run_id, "name": run_id, "state_type": state, "deployment_id": None}


@pytest.fixture
def running(fake: FakePrefect) -> FakePrefect:
    run(fake, f"/flow_runs/{ROOT}", "RUNNING")
    run(fake, f"/flow_runs/{SUBFLOW}", "RUNNING")
    run(fake, f"/task_runs/{TASK}", "RUNNING")
    return fake


def test_the_flow_run_of_a_killed_process_is_crashed_with_all_below_it(running: FakePrefect, tmp_path: Path) -> None:
    keep(tmp_path, leftover())
    settle(tmp_path, ONCE)
    changed = [path for _, path, _ in running.requests if path.endswith("/set_state")]
    assert changed == [
        f"/task_runs/{TASK}/set_state",
        f"/flow_runs/{SUBFLOW}/set_state",
        f"/flow_runs/{ROOT}/set_state",
    ]
    states = [found["state"] for found in running.objects.values()]
    assert {(state["type"], state["name"], state["message"]) for state in states} == {("CRASHED", "Crashed", ENDED)}
    assert not file_of(tmp_path, ROOT).exists()


def test_one_that_ended_keeps_its_state(running: FakePrefect, tmp_path: Path) -> None:
    """Prefect's runner, for instance, calls the killed run crashed, and leaves its rounds."""
    run(running, f"/flow_runs/{ROOT}", "COMPLETED")
    keep(tmp_path, leftover())
    settle(tmp_path, ONCE)
    assert {path: found["state_type"] for path, found in running.objects.items()} == {
        f"/flow_runs/{ROOT}": "COMPLETED",
        f"/flow_runs/{SUBFLOW}": "CRASHED",
        f"/task_runs/{TASK}": "CRASHED",
    }


def test_a_living_process_is_left_alone(running: FakePrefect, tmp_path: Path) -> None:
    keep(tmp_path, leftover(identity_of()))
    settle(tmp_path, ONCE)
    assert running.requests == []
    assert file_of(tmp_path, ROOT).exists()


def test_while_the_server_is_away_all_stays_as_it_is(running: FakePrefect, tmp_path: Path) -> None:
    running.stop()
    keep(tmp_path, leftover(messages=[Message(method="PATCH", path=f"/flow_runs/{ROOT}", body="{}")]))
    settle(tmp_path, ONCE)
    assert what_prefect_lacks(tmp_path) == "http://a/api lacks the end of tiny; the next run in this folder tells it"


def test_a_server_that_is_back_before_the_run_ends_is_told(running: FakePrefect, tmp_path: Path) -> None:
    running.fails_at["/set_state"] = 503  # as where its database is locked
    keep(tmp_path, leftover())
    Timer(1.0, running.fails_at.clear).start()
    settle(tmp_path, Event())
    assert {found["state_type"] for found in running.objects.values()} == {"CRASHED"}
    assert what_prefect_lacks(tmp_path) is None


def test_a_server_that_has_just_started_is_waited_for_a_while(running: FakePrefect, tmp_path: Path) -> None:
    running.fails_at["/set_state"] = 503
    keep(tmp_path, leftover())
    settle_within(tmp_path, patience_s=0.1)
    assert file_of(tmp_path, ROOT).exists()
    Timer(1.0, running.fails_at.clear).start()
    settle_within(tmp_path, patience_s=30)
    assert {found["state_type"] for found in running.objects.values()} == {"CRASHED"}


def test_another_servers_flow_run_is_forgotten_after_months(fake: FakePrefect, tmp_path: Path) -> None:
    import os

    keep(tmp_path, leftover())
    settle(tmp_path, ONCE)
    assert file_of(tmp_path, ROOT).exists()
    os.utime(file_of(tmp_path, ROOT), (0, file_of(tmp_path, ROOT).stat().st_mtime - FORGOTTEN_AFTER_S - 60))
    settle(tmp_path, ONCE)
    assert not file_of(tmp_path, ROOT).exists()


def test_scheduled_flow_runs_that_nobody_began_are_crashed(fake: FakePrefect, tmp_path: Path) -> None:
    """A killed `regroup serve` leaves those that it had just handed out."""
    for run_id in (ROOT, OTHER):
        run(fake, f"/flow_runs/{run_id}", "PENDING")
        fake.objects[f"/flow_runs/{run_id}"]["deployment_id"] = SUBFLOW
    settle(tmp_path, ONCE, ROOT)
    assert fake.states()[OTHER] == "CRASHED"


def test_a_torn_file_is_passed_over(fake: FakePrefect, tmp_path: Path) -> None:
    keep(tmp_path, leftover())
    file_of(tmp_path, ROOT).write_text('{"flow_run": ')
    settle(tmp_path, ONCE)
    assert what_prefect_lacks(tmp_path) is None
