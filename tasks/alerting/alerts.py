"""Tells receivers of what happens in a run. They are told from a thread, so that none of them delays the training."""

from __future__ import annotations

import contextvars
import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from configs.schema.run import AlertConfig, Happening
from tasks.alerting import receivers
from tasks.alerting.outbox import Alert, Outbox, alert_id
from tasks.alerting.receivers import PREFECT, Untold

RETRY_EVERY_S = 60.0
END_WITHIN_S = 20.0
LOOK_EVERY_S = 0.2


def _storable(value: Any) -> Any:
    """`value` as JSON keeps it everywhere: lone surrogates become question marks, and NaN and infinity None."""
    text = json.dumps(value, ensure_ascii=False, default=str).encode(errors="replace")
    return json.loads(text, parse_constant=lambda _: None)


def _log(text: str) -> None:
    logging.getLogger("regroup").warning(text)


class Alerts:
    """What happens in one run. No method raises because a receiver is away, or waits for one; `finish` does for a while."""

    def __init__(
        self,
        root: Path,
        configured: Sequence[AlertConfig],
        *,
        run: str,
        uid: str,
        flow_run: str | None = None,
        warn: Callable[[str], None] = _log,
    ) -> None:
        self._root = root
        self._outbox = Outbox(root)
        self._configured = configured
        self._run = run
        self._uid = uid
        self._flow_run = flow_run
        self._warn = warn
        self._unreached: set[str] = set()
        self._wake = threading.Event()
        self._end_by: float | None = None
        self._thread: threading.Thread | None = None

    def tell(
        self, happening: Happening, text: str, *, which: object, round_index: int | None = None, **details: Any
    ) -> None:
        """Write down that it happened, and let the receivers be told, unless that was done before.

        `which` tells it from others of its kind in the round: equal ones are told once, however often a run is resumed.
        """
        alert = Alert(
            id=alert_id(self._uid, happening, round_index, which),
            happening=happening,
            at_ms=int(time.time() * 1000),
            run=self._run,
            round=round_index,
            text=_storable(f"run {self._run}{'' if round_index is None else f', round {round_index}'}: {text}"),
            details=_storable(details),
            flow_run=self._flow_run,
            to=[*([PREFECT] if self._flow_run else []), *receivers.receivers(self._configured, happening)],
        )
        try:
            self._outbox.add(alert)
        except OSError as error:
            self._warn(f"{happening} could not be written down ({error}); it is told by this process alone")
        self.send()

    def send(self) -> None:
        """Let the receivers be told what is missing, also of earlier runs."""
        if self._thread is None:
            # a thread has no context of its own, and Prefect's has the address of its server
            work = contextvars.copy_context().run
            self._thread = threading.Thread(target=work, args=(self._work,), name="alerts", daemon=True)
            self._thread.start()
        self._wake.set()

    def finish(self) -> None:
        """Wait until all were told or once more could not be, for `END_WITHIN_S` at most."""
        if self._thread is not None:
            self._end_by = time.monotonic() + END_WITHIN_S
            self._wake.set()
            self._thread.join(END_WITHIN_S)
            self._thread, self._end_by = None, None

    def _work(self) -> None:
        while True:
            self._wake.wait(RETRY_EVERY_S)
            self._wake.clear()
            end_by = self._end_by
            while not self._told_missing() and end_by is not None and time.monotonic() < end_by:
                time.sleep(LOOK_EVERY_S)
            if end_by is not None:
                return

    def _told_missing(self) -> bool:
        """Whether receivers were told, or not reached; False while another process or thread is telling them."""
        with self._outbox.alone() as alone:
            if alone:
                self._tell_missing()
            return alone

    def _tell_missing(self) -> None:
        """Tell each receiver what it was not told; at its first failure it is left for later."""
        for receiver, missing in self._outbox.missing().items():
            try:
                for alert in missing:
                    receivers.tell(receiver, alert, self._root)
                    with suppress(OSError):  # a full disk: the note is written with the next one
                        self._outbox.note_told(alert, receiver)
                    self._unreached.discard(receiver)
            except (Untold, OSError) as error:
                if receiver not in self._unreached:
                    self._warn(
                        f"{receiver} could not be told of {missing[0].happening} ({error}); it will be told later"
                    )
                self._unreached.add(receiver)
