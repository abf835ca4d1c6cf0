"""Asking people and waiting for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.errors import StageStopped
from configs.records import ReviewItem, Verdict
from tasks.people.review_desk import ReviewDesk
from tasks.running.stage import Context


def item(name: str) -> ReviewItem:
    return ReviewItem(
        id=name, kind="pair", objective="quality", run="r", round=0, problem_key=name, prompt="?", first="one", second="two",
        sources=("A", "B"), split="train",
    )  # fmt: skip


def verdict(name: str, person: str = "x", given_ms: int = 0) -> Verdict:
    return Verdict(item=name, choice="first", person=person, given_ms=given_ms, via="file")


class Time:
    """Seconds that pass only while somebody sleeps; `at` says what happens when."""

    def __init__(self, at: dict[float, Verdict] | None = None) -> None:
        self.seconds = 1000.0
        self.at = at or {}

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds

    def given(self, items: object) -> list[Verdict]:
        return [verdict for second, verdict in self.at.items() if self.seconds - 1000 >= second]


def desk(root: Path, time: Time, **more: object) -> ReviewDesk:
    return ReviewDesk(root, take_in=time.given, now=time.now, sleep=time.sleep, **more)  # type: ignore[arg-type]


def test_an_item_is_asked_once_and_keeps_the_time_of_its_first_asking(tmp_path: Path) -> None:
    time = Time()
    desk(tmp_path, time).ask([item("a")])
    time.sleep(60)
    desk(tmp_path, time).ask([item("a"), item("b")])
    assert [(asked.item.id, asked.asked_ms) for asked in ReviewDesk(tmp_path).asked()] == [
        ("a", 1000_000),
        ("b", 1060_000),
    ]


def test_a_known_verdict_is_not_added_again_and_none_is_ever_changed(tmp_path: Path) -> None:
    reviews = ReviewDesk(tmp_path)
    assert reviews.add([verdict("a"), verdict("a"), verdict("a", "y")]) == 2
    assert reviews.add([verdict("a"), verdict("a", given_ms=5)]) == 1
    assert reviews.answers([item("a"), item("b")]) == {"a": [verdict("a"), verdict("a", "y"), verdict("a", given_ms=5)]}


def test_a_torn_line_of_a_killed_writer_does_not_spoil_the_next_one(tmp_path: Path) -> None:
    reviews = ReviewDesk(tmp_path)
    reviews.add([verdict("a")])
    path = tmp_path / "review" / "verdicts.jsonl"
    path.write_bytes(path.read_bytes() + b'{"item": "b", "cho')
    reviews.add([verdict("c")])
    assert set(reviews.answers([item("a"), item("b"), item("c")])) == {"a", "c"}
    assert path.read_bytes().count(b"\n") == 2


def test_waiting_ends_when_enough_is_answered(tmp_path: Path) -> None:
    time = Time({30.0: verdict("a"), 90.0: verdict("b"), 900.0: verdict("c")})
    reviews, items = desk(tmp_path, time), [item("a"), item("b"), item("c")]
    reviews.ask(items)
    assert set(reviews.wait(items, minutes=60, enough=2, context=Context())) == {"a", "b"}
    assert 90 <= time.seconds - 1000 < 95
    assert set(reviews.wait(items, minutes=60, enough=None, context=Context())) == {"a", "b", "c"}
    assert 900 <= time.seconds - 1000 < 905


def test_waiting_ends_with_its_time_counted_from_the_asking_across_a_restart(tmp_path: Path) -> None:
    time, items = Time(), [item("a")]
    desk(tmp_path, time).ask(items)
    time.sleep(240)
    assert desk(tmp_path, time).wait(items, minutes=5, enough=None, context=Context()) == {}
    assert 300 <= time.seconds - 1000 < 305
    time.sleep(1000)
    before = time.seconds
    desk(tmp_path, time).wait(items, minutes=5, enough=None, context=Context())
    assert time.seconds == before


def test_no_time_to_wait_takes_what_is_there(tmp_path: Path) -> None:
    time, items = Time({0.0: verdict("a")}), [item("a"), item("b")]
    reviews = desk(tmp_path, time)
    reviews.ask(items)
    assert set(reviews.wait(items, minutes=0, enough=None, context=Context())) == {"a"}
    assert time.seconds == 1000


def test_waiting_ends_when_a_person_says_go_on(tmp_path: Path) -> None:
    time, items = Time(), [item("a")]
    reviews = desk(tmp_path, time, told_to_go_on=lambda: time.seconds > 1010)
    reviews.ask(items)
    assert reviews.wait(items, minutes=60, enough=None, context=Context()) == {}
    assert 1010 < time.seconds < 1020


def test_a_run_that_is_asked_to_stop_stops_waiting_at_once(tmp_path: Path) -> None:
    time, items = Time(), [item("a")]
    reviews = desk(tmp_path, time)
    reviews.ask(items)
    with pytest.raises(StageStopped, match="0 of 1 answered"):
        reviews.wait(items, minutes=60, enough=None, context=Context(should_stop=lambda: time.seconds > 1001))
    assert time.seconds < 1002
