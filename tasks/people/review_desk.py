"""Keeps what people are asked in a workspace and what they answer: `review/items.jsonl` and `review/verdicts.jsonl`.

Both files only grow. A waiting run and `regroup review import` may append at the same time, so each holds an
operating-system lock while it writes.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

from configs.disk.files import json_line, read_jsonl
from configs.errors import StageStopped
from configs.records import Record, ReviewItem, Verdict
from tasks.running.stage import Context
from tasks.runs.stage_files import ITEMS, VERDICTS

POLL_S = 3.0

Answers = dict[str, list[Verdict]]
"""verdicts by item id"""


class Asked(Record):
    """A review item, and since when people are asked about it."""

    item: ReviewItem
    asked_ms: int


def _nobody_elsewhere(items: Sequence[ReviewItem]) -> list[Verdict]:
    return []


class ReviewDesk:
    """The workspace's items and verdicts.

    `take_in(items)` returns the verdicts that were given elsewhere, in MLflow's queue; `told_to_go_on()` says whether a
    person has ended the waiting.
    """

    def __init__(
        self,
        root: Path,
        *,
        take_in: Callable[[Sequence[ReviewItem]], list[Verdict]] = _nobody_elsewhere,
        told_to_go_on: Callable[[], bool] = lambda: False,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._items = root / "review" / ITEMS
        self._verdicts = root / "review" / VERDICTS
        self._take_in = take_in
        self._told_to_go_on = told_to_go_on
        self._now = now
        self._sleep = sleep

    # ---- asking -----------------------------------------------------------------------------------------------------

    def ask(self, items: Iterable[ReviewItem]) -> None:
        """Ask people about `items` from now on; items that were asked before stay unchanged."""
        known = {asked.item.id for asked in self.asked()}
        now_ms = int(1000 * self._now())
        _append(self._items, [Asked(item=item, asked_ms=now_ms) for item in items if item.id not in known])

    def asked(self) -> list[Asked]:
        """All items that people were asked about, oldest first."""
        return read_jsonl(self._items, Asked) if self._items.exists() else []

    # ---- answers ----------------------------------------------------------------------------------------------------

    def add(self, verdicts: Iterable[Verdict]) -> int:
        """Append the verdicts that are not stored yet; returns how many there were."""
        known = set(self._known())
        new = [verdict for verdict in dict.fromkeys(verdicts) if verdict not in known]
        _append(self._verdicts, new)
        return len(new)

    def _known(self) -> list[Verdict]:
        return read_jsonl(self._verdicts, Verdict) if self._verdicts.exists() else []

    def answers(self, items: Sequence[ReviewItem]) -> Answers:
        """The verdicts on `items` so far, given here or elsewhere; an item without verdicts has no entry."""
        self.add(self._take_in(items))
        ids = {item.id for item in items}
        by_item: Answers = {}
        for verdict in self._known():
            if verdict.item in ids:
                by_item.setdefault(verdict.item, []).append(verdict)
        return by_item

    def wait(self, items: Sequence[ReviewItem], *, minutes: float, enough: int | None, context: Context) -> Answers:
        """Wait for people; returns `answers`.

        Waits until `enough` of the items (None: all) are answered, `minutes` have passed since the first of them was
        asked, or a person says to go on.

        Raises:
            StageStopped: the run was asked to stop; a later call counts the minutes from the same start.
        """
        num_wanted = len(items) if enough is None else min(enough, len(items))
        ids = {item.id for item in items}
        since = min((asked.asked_ms / 1000 for asked in self.asked() if asked.item.id in ids), default=self._now())
        until = since + 60 * minutes
        while True:
            answers = self.answers(items)
            if len(answers) >= num_wanted or self._now() >= until or self._told_to_go_on():
                return answers
            context.progress.say(
                f"waiting for people: {len(answers)} of {num_wanted} answered, until {time.strftime('%H:%M', time.localtime(until))}"
            )
            for _ in range(10):
                if context.should_stop():
                    raise StageStopped(f"stopped while waiting for people ({len(answers)} of {num_wanted} answered)")
                self._sleep(POLL_S / 10)


def _append(path: Path, records: Sequence[Record]) -> None:
    """Append whole lines under a lock, and flush them to disk."""
    if not records:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        _drop_torn_line(file)
        file.write("".join(json_line(record) for record in records).encode())
        file.flush()
        os.fsync(file.fileno())


def _drop_torn_line(file: BinaryIO) -> None:
    """Cut off the incomplete last line that a killed writer may have left."""
    file.seek(0)
    whole = file.read().rpartition(b"\n")
    file.truncate(len(whole[0]) + len(whole[1]))
