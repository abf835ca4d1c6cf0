"""What a stage works on is work; what it tells meanwhile, and everything around stages, is not."""

import time

import pytest

from tasks.running.clock import Clock


def test_telling_inside_a_stage_is_bookkeeping():
    clock = Clock(started=time.time())
    time.sleep(0.02)
    with clock.working():
        time.sleep(0.05)
        clock.aside(lambda: time.sleep(0.03))()
    facts = clock.facts()
    assert clock.work == pytest.approx(0.05, abs=0.015)
    assert facts["bookkeeping"] == pytest.approx(0.05, abs=0.02)
    assert facts["whole"] == pytest.approx(facts["bookkeeping"] + clock.work)


def test_a_stage_that_fails_has_worked_until_then():
    clock = Clock()

    def fails():
        time.sleep(0.02)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"), clock.working():
        fails()
    assert clock.work >= 0.02
