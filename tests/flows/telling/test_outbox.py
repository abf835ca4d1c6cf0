"""What waits for Prefect's server, and how long whoever ends waits for it."""

from __future__ import annotations

import json
import time

import pytest

from flows.telling import outbox as room
from flows.telling.messages import EVENTS, Message
from flows.telling.outbox import Outbox
from tests.flows.telling.fake_prefect import FakePrefect


def line(number: int, *, can_be_lost: bool = False) -> Message:
    return Message(method="POST", path="/logs/", body=json.dumps([number]), can_be_lost=can_be_lost)


def event(number: int, *, can_be_lost: bool = False) -> Message:
    return Message(method="POST", path=EVENTS, body=json.dumps([number]), can_be_lost=can_be_lost)


def bodies(fake: FakePrefect) -> list[str]:
    return [body for _, _, body in fake.requests]


def started(warnings: list[str] | None = None) -> Outbox:
    outbox = Outbox((warnings if warnings is not None else []).append)
    outbox.start()
    return outbox


def test_messages_arrive_in_order_whatever_happens_to_the_server(fake: FakePrefect) -> None:
    warnings: list[str] = []
    outbox = started(warnings)
    for number in range(30):
        if number % 10 == 5:
            fake.stop()
        outbox.put(line(number))
        if number % 10 == 9:
            while outbox.away is None:
                time.sleep(0.01)
            fake.start()
            assert outbox.wait(10)
    assert outbox.end(1) == []
    assert bodies(fake) == [f"[{number}]" for number in range(30)]
    assert len(warnings) == 3


def away_after(outbox: Outbox, fake: FakePrefect, message: Message) -> None:
    """All that waits is delivered, and the server is away before `message` is put."""
    assert outbox.wait(10)
    fake.stop()
    outbox.put(message)
    while outbox.away is None:
        time.sleep(0.01)


def test_the_newest_events_are_told_again_to_a_server_that_was_away(fake: FakePrefect) -> None:
    """Prefect's server says that it has an event and loses it when it is killed within the next seconds."""
    outbox = started()
    for message in (line(0), event(1), event(2, can_be_lost=True), event(3)):
        outbox.put(message)
    for number in (4, 5):
        away_after(outbox, fake, line(number))
        fake.start()
    assert outbox.end(10) == []
    assert bodies(fake) == ["[0]", "[1]", "[2]", "[3]", "[1]", "[3]", "[4]", "[1]", "[3]", "[5]"]


def test_an_event_that_the_server_has_had_for_long_is_not_told_again(
    fake: FakePrefect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "UNSURE_S", 0.0)
    outbox = started()
    for message in (event(1), line(2)):  # the answer to the second shows that the server lives
        outbox.put(message)
    away_after(outbox, fake, line(3))
    fake.start()
    assert outbox.end(10) == []
    assert bodies(fake) == ["[1]", "[2]", "[3]"]


def test_events_that_a_server_may_have_lost_are_left_for_the_next_process(fake: FakePrefect) -> None:
    outbox = started()
    outbox.put(event(1))
    away_after(outbox, fake, line(2))
    assert [message.body for message in outbox.end(0.2)] == ["[1]", "[2]"]


def test_what_is_left_at_the_end_is_returned_with_the_ids_that_are_known(fake: FakePrefect) -> None:
    own, task = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"
    outbox = started()
    outbox.put(Message(method="POST", path="/flow_runs/", body='{"name": "round-1"}', own_id=own))
    assert outbox.wait(10)
    (made,) = fake.flow_runs()
    names = Message(method="POST", path=f"/{own}/{task}", body=f'["{own}"]')
    assert outbox.with_real_ids(names).path == f"/{made['id']}/{task}"
    assert outbox.with_real_ids(names).body == f'["{made["id"]}"]'
    fake.stop()
    outbox.put(Message(method="PATCH", path=f"/flow_runs/{own}", body=json.dumps({"a": own, "b": task})))
    (left,) = outbox.end(0.2)
    assert left.path == f"/flow_runs/{made['id']}"
    assert json.loads(left.body) == {"a": made["id"], "b": task}


def test_writing_never_waits_and_only_lines_of_logs_are_dropped(
    fake: FakePrefect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "MOST_WAITING", 10)
    fake.stop()
    outbox = started()
    began = time.monotonic()
    for number in range(200):
        outbox.put(line(number, can_be_lost=number % 20 != 0))
    assert time.monotonic() - began < 1.0
    left = [json.loads(message.body)[0] for message in outbox.end(0.1)]
    assert [number for number in left if number % 20 == 0] == list(range(0, 200, 20))
    assert len(left) in (10, 11)  # the first is never dropped, since it may be on its way
    assert outbox.num_dropped == 200 - len(left)


@pytest.mark.parametrize(("status", "num_tries"), [(404, 1), (422, 1), (500, room.TRIES)])
def test_a_message_that_the_server_fails_at_holds_nothing_up(fake: FakePrefect, status: int, num_tries: int) -> None:
    tried = []
    answer = fake.answer

    def answering(method: str, path: str, body: str) -> tuple[int, object]:
        if body == "[1]":
            tried.append(path)
            return status, {"detail": "no"}
        return answer(method, path, body)

    fake.answer = answering  # type: ignore[method-assign]
    outbox = started()
    for number in range(3):
        outbox.put(line(number))
    assert outbox.end(10) == []
    assert (bodies(fake), len(tried), outbox.num_refused) == (["[0]", "[2]"], num_tries, 1)


def test_a_final_state_is_set_by_force_where_rules_refuse_it(fake: FakePrefect) -> None:
    """For instance after an automation called the silent flow run crashed."""
    told, answer = [], fake.answer

    def answering(method: str, path: str, body: str) -> tuple[int, object]:
        if method == "GET":
            return answer(method, path, body)
        told.append(json.loads(body))
        return 200, {"state": None, "status": "ACCEPT" if told[-1]["force"] else "ABORT", "details": {}}

    fake.answer = answering  # type: ignore[method-assign]
    outbox = started()
    for state in ("RUNNING", "COMPLETED"):
        body = json.dumps({"state": {"type": state, "message": None}, "force": False})
        outbox.put(Message(method="POST", path="/flow_runs/1/set_state", body=body, at_s=time.time()))
    assert outbox.end(10) == []
    assert [(body["state"]["type"], body["force"]) for body in told] == [
        ("RUNNING", False),
        ("COMPLETED", False),
        ("COMPLETED", True),
    ]


def test_a_state_that_is_told_late_says_when_it_was_so(fake: FakePrefect) -> None:
    fake.objects["/flow_runs/1"] = {}
    outbox = started()
    for message in (None, "stopped"):
        body = json.dumps({"state": {"type": "RUNNING", "message": message}, "force": False})
        outbox.put(Message(method="POST", path="/flow_runs/1/set_state", body=body, at_s=1_700_000_000))
    assert outbox.end(10) == []
    then = "told late: it was so at 2023-11-14 22:13:20 UTC"
    assert [json.loads(body)["state"]["message"] for body in bodies(fake)] == [then, f"stopped ({then})"]
