"""What a stage works on is work; what it tells meanwhile, and everything around stages, is not. Pauses are neither."""

import time

import pytest

from tasks.running.clock import Clock


def test_telling_inside_a_stage_is_bookkeeping():
    clock = Clock(started=time.time())
    time.sleep(0.02)
    with clock.working():
        time.sleep(0.05)
        clock.aside(lambda: time.sleep(0.03))()
    now = clock.now()
    assert clock.work == now.work == pytest.approx(0.05, abs=0.015)
    assert now.whole - now.work == pytest.approx(0.05, abs=0.02)


def test_waiting_for_people_is_a_pause():
    clock = Clock(started=time.time())
    with clock.working():
        time.sleep(0.02)
        clock.pausing(time.sleep)(0.2)
    now = clock.now()
    assert clock.pauses == pytest.approx(0.2, abs=0.02)
    assert now.work == pytest.approx(0.02, abs=0.015)
    assert now.whole == pytest.approx(0.02, abs=0.02)


def test_a_stage_that_fails_has_worked_until_then():
    clock = Clock()

    def fails():
        time.sleep(0.02)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"), clock.working():
        fails()
    assert clock.work >= 0.02
