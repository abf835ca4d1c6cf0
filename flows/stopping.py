"""Handles Ctrl-C and SIGTERM: the first signal asks the stage to stop at a step boundary, a second one ends at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
MESSAGE = b"\nstopping at the next step boundary; Ctrl-C again ends at once\n"


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """While the block runs, SIGTERM raises KeyboardInterrupt too, so that what the block started is ended with it.

    By default it would end this process at once, and leave its servers. Outside the main thread this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def held_back() -> Iterator[None]:
    """Hold a signal back until the block has ended, in which a process is started and noted: neither is without the other.

    Outside the main thread, where no signal is handled, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    previous = {number: signal.signal(number, lambda *signalled: came.append(signalled)) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0][0])


class Stop:
    """A stop request; calling it returns True once a signal has arrived."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self) -> bool:
        return self.asked

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals while the block runs, then restore the previous handlers.

        Prefect installs its own SIGTERM handler at the start of each flow and removes it at the end, so the body of
        every flow has to open this block. Outside the main thread Python cannot set handlers, and the block does
        nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {signal_number: signal.signal(signal_number, self._handle) for signal_number in SIGNALS}
        try:
            yield
        finally:
            for signal_number, handler in previous.items():
                signal.signal(signal_number, handler)

    def _handle(self, _signal_number: int, _frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        os.write(2, MESSAGE)
