"""Signals ask once and end the second time."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from flows.stopping import Stop, held_back


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_ends_at_once(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    stop = Stop()
    with stop.listening():
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert "stopping at the next step boundary" in capfd.readouterr().err


def test_handlers_are_given_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Stop().listening():
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_off_the_main_thread_nothing_is_taken() -> None:
    taken: list[object] = []

    def work() -> None:
        with Stop().listening():
            taken.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert taken == [before]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_until_what_is_started_is_noted(number: signal.Signals) -> None:
    done: list[str] = []
    stop = Stop()
    with stop.listening():
        with held_back():
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)
            done += ["started", "noted"]
            assert not stop()
        assert stop()
    assert done == ["started", "noted"]


def test_a_signal_is_not_lost_where_starting_fails() -> None:
    def start() -> None:
        with held_back():
            os.kill(os.getpid(), signal.SIGINT)
            raise OSError("nothing to start")

    with pytest.raises(KeyboardInterrupt):
        start()
