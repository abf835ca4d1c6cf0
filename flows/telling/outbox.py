"""Messages for Prefect that wait in order, and the thread that delivers them. Whoever writes one never waits.

Prefect's server answers that it has an event before it has written it: events wait in its memory for up to 5 s, among them
those that say how a task ended. Those of a server that was killed are lost, so the newest are told again to a server that was
away. It knows them by their ids, and leaves those that it has.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context

from flows.telling.messages import EVENTS, SERVER_ERROR, Away, Message, Refused
from flows.telling.messenger import Messenger

MOST_WAITING = 5000
"""over that, the oldest of those that can be lost are dropped"""
PAUSE_S = 2.0
"""between two tries while the server is away"""
TRIES = 3
"""of a message that the server fails at while it works otherwise"""
UNSURE_S = 30.0
"""a server that answers so long after an event's delivery has written it"""

logger = logging.getLogger("regroup")


class Outbox:
    """The messages that wait. `warn` is called once whenever the server goes away."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self.away: str | None = None
        """why nothing can be delivered now; None while all is well"""
        self.num_refused = 0
        self.num_dropped = 0
        self._warn = warn
        self._waiting: deque[Message] = deque()
        self._unsure: deque[tuple[float, Message]] = deque()
        """(when it was delivered, event) of those that the server may not have written yet"""
        self._num_delivered = 0
        self._num_tries = 0
        self._changed = threading.Condition()
        self._ends = False
        self._real_ids: dict[str, str] = {}
        context = copy_context()  # the server's address is a setting of Prefect, and those are a context variable
        self._thread = threading.Thread(target=context.run, args=[self._deliver], name="telling Prefect", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, message: Message) -> None:
        with self._changed:
            self._waiting.append(message)
            if len(self._waiting) > MOST_WAITING:
                self._drop_one()
            self._changed.notify_all()

    @property
    def is_empty(self) -> bool:
        with self._changed:
            return not self._waiting

    def with_real_ids(self, message: Message) -> Message:
        """The message with the server's ids of what this process knows under ids of its own."""
        return message.with_ids(self._real_ids)

    def wait(self, patience_s: float) -> bool:
        """Wait until all is delivered; returns False when nothing was for `patience_s`."""
        with self._changed:
            self._changed.notify_all()
            while self._waiting:
                before, deadline = self._num_delivered, time.monotonic() + patience_s
                while self._waiting and self._num_delivered == before:
                    if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                        return False
        return True

    def end(self, patience_s: float) -> list[Message]:
        """End the delivery when all is delivered, or nothing was for `patience_s`, or at Ctrl-C; returns what is left."""
        with suppress(KeyboardInterrupt):
            self.wait(patience_s)
        with self._changed:
            self._ends = True
            self._changed.notify_all()
            return [self.with_real_ids(message) for message in self._waiting]

    def _drop_one(self) -> None:
        for i, message in enumerate(self._waiting):
            if i > 0 and message.can_be_lost:  # the first one may be on its way
                del self._waiting[i]
                self.num_dropped += 1
                return

    # ---- the thread -------------------------------------------------------------------------------------------------

    def _deliver(self) -> None:
        with Messenger() as messenger:
            self._real_ids = messenger.real_ids
            while (message := self._next()) is not None:
                if self._is_settled(messenger, message):
                    self._is_delivered()

    def _is_settled(self, messenger: Messenger, message: Message) -> bool:
        """Whether the message was delivered, or refused for good; if not, a while has passed."""
        try:
            messenger.deliver(message)
        except Away as error:
            self._is_away(str(error))
            return False
        except Refused as error:
            self._num_tries += 1
            if error.status >= SERVER_ERROR and self._num_tries < TRIES:
                self._pause()
                return False
            self.num_refused += 1
            logger.debug("Prefect refused a message: %s", error)
        self._num_tries = 0
        return True

    def _next(self) -> Message | None:
        """The oldest message, once there is one; None when nothing more is to be delivered."""
        with self._changed:
            while not self._waiting and not self._ends:
                self._changed.wait()
            return None if self._ends else self._waiting[0]

    def _is_delivered(self) -> None:
        now = time.monotonic()
        with self._changed:
            delivered = self._waiting.popleft()
            self._num_delivered += 1
            self._changed.notify_all()
        if delivered.path == EVENTS and not delivered.can_be_lost:
            self._unsure.append((now, delivered))
        while self._unsure and now - self._unsure[0][0] > UNSURE_S:
            self._unsure.popleft()
        if self.away is not None:
            self.away = None
            logger.info("Prefect's server answers again")

    def _is_away(self, why: str) -> None:
        if self.away is None:
            self._warn(f"Prefect's server does not answer ({why}); the work goes on, and Prefect is told of it later")
            self._wait_again()
        self.away = why
        self._pause()

    def _wait_again(self) -> None:
        """Put the events that a killed server may have lost before all that waits."""
        with self._changed:
            self._waiting.extendleft(event for _, event in reversed(self._unsure))
        self._unsure.clear()

    def _pause(self) -> None:
        end = time.monotonic() + PAUSE_S
        with self._changed:
            while not self._ends and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)
