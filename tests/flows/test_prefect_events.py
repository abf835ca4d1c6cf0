"""A real Prefect server gets each happening as one event, which its automations see."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from flows.prefect_server import connected
from tasks.alerting.alerts import Alerts
from tasks.alerting.outbox import Outbox
from tests.tasks.alerting.hook import until

FLOW_RUN = str(uuid4())


def _tell(workspace: Path, warnings: list[str]) -> UUID:
    """Tell of a refused challenger, as a run does each time that it is resumed; the alert's id."""
    alerts = Alerts(workspace, [], run="mini-0002", uid="u", flow_run=FLOW_RUN, warn=warnings.append)
    alerts.tell("challenger.refused", "the challenger was refused", which=1, round_index=1, gain=-0.25)
    alerts.finish()
    return UUID(Outbox(workspace).alerts()[0].id)


@pytest.mark.parametrize("answers", [False, True], ids=["refuses", "hangs"])
def test_nobody_waits_for_a_prefect_server_that_is_away(tmp_path: Path, answers: bool) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    warnings: list[str] = []
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if answers:
            server.listen(8)  # connections are taken, and never served
        url = f"http://127.0.0.1:{server.getsockname()[1]}/api"
        with temporary_settings({PREFECT_API_URL: url}):
            alerts = Alerts(tmp_path, [], run="mini", uid="u", flow_run=FLOW_RUN, warn=warnings.append)
            began = time.monotonic()
            alerts.tell("run.finished", "finished", which=1)
            assert time.monotonic() - began < 1
            alerts.finish()
            assert time.monotonic() - began < 15
    assert len(warnings) == 1
    assert "prefect could not be told of run.finished" in warnings[0]
    assert list(Outbox(tmp_path).missing()) == ["prefect"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_prefect_has_the_event_once_and_an_automation_sees_it(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_HOME", raising=False)
    warnings: list[str] = []
    event_id = _tell(workspace, warnings)  # no server yet: the run goes on
    assert warnings == [
        "prefect could not be told of challenger.refused (no server is connected); it will be told later"
    ]
    with connected(workspace):
        from prefect.automations import Automation
        from prefect.client.orchestration import get_client
        from prefect.events.actions import DoNothing
        from prefect.events.filters import EventFilter, EventNameFilter
        from prefect.events.schemas.automations import EventTrigger

        Automation(
            name="refused",
            trigger=EventTrigger(
                expect={"regroup.challenger.refused"},
                match={"prefect.resource.id": "regroup.run.mini*"},
                threshold=1,
                within=0,
            ),
            actions=[DoNothing()],
        ).create()
        time.sleep(1)
        assert _tell(workspace, warnings) == event_id
        Outbox(workspace).path.write_text("")  # as if a kill had come before the note that Prefect was told
        assert _tell(workspace, warnings) == event_id

        with get_client(sync_client=True) as client:

            def events(name: str) -> list[dict[str, object]]:
                chosen = EventFilter(event=EventNameFilter(name=[name]))
                response = client.request(
                    "POST", "/events/filter", json={"filter": chosen.model_dump(mode="json"), "limit": 50}
                )
                found: list[dict[str, object]] = response.json()["events"]
                return found

            until(lambda: bool(events("prefect.automation.triggered")), timeout_s=60)
            until(lambda: bool(events("regroup.challenger.refused")), timeout_s=60)
            time.sleep(6)  # Prefect keeps events for five seconds before it writes them
            [event] = events("regroup.challenger.refused")
            assert len(events("prefect.automation.triggered")) == 1
    assert event["id"] == str(event_id)
    assert event["resource"] == {
        "prefect.resource.id": "regroup.run.mini-0002",
        "prefect.resource.name": "mini-0002",
    }
    assert event["related"] == [
        {"prefect.resource.id": f"prefect.flow-run.{FLOW_RUN}", "prefect.resource.role": "flow-run"}
    ]
    assert event["payload"] == {
        "text": "run mini-0002, round 1: the challenger was refused",
        "run": "mini-0002",
        "round": 1,
        "details": {"gain": -0.25},
    }
    assert len(warnings) == 1
