"""Ctrl-C and SIGTERM: the first asks the stage to stop at its next step boundary, the second ends at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
MESSAGE = b"\nstopping at the next step boundary; Ctrl-C again ends at once\n"


class Stop:
    """Called by a stage between two steps: True once a stop was asked for."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self) -> bool:
        return self.asked

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals for the time of the block.

        Prefect takes SIGTERM at the start of each flow and gives it back at its end, so every flow's body opens this
        block anew. Off the main thread signals cannot be taken, and the block does nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._take) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _take(self, number: int, _frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        os.write(2, MESSAGE)
