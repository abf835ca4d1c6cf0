"""A process is seen to be alive by a file that it changes, whatever the clocks of the machines say."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from configs.disk.heartbeat import BEAT_S, LOST_AFTER_S, Heart, Pulse, header_of


def test_a_heart_that_beats_is_seen_by_change_alone(tmp_path: Path) -> None:
    """Its file may carry any time: the clock of another machine wrote it."""
    file = tmp_path / "deep/heart"
    with Heart(file, "node1"):
        pulse = Pulse(file)
        os.utime(file, (0, 0))
        assert not pulse.has_beaten
        time.sleep(2.5 * BEAT_S)
        assert pulse.silent_s() < 0.5
        assert pulse.has_beaten
        assert header_of(file) == "node1"
    assert not file.exists()


def test_silence_is_counted_from_the_last_change(tmp_path: Path) -> None:
    now, file = [100.0], tmp_path / "heart"
    file.write_text("node1\n000000000007\n")
    pulse = Pulse(file, now=lambda: now[0])
    now[0] += 5
    assert (pulse.silent_s(), pulse.has_beaten) == (5.0, False)
    file.write_text("node1\n000000000008\n")
    assert (pulse.silent_s(), pulse.has_beaten) == (0.0, True)
    now[0] += LOST_AFTER_S + 1
    file.unlink()  # what is gone is silent, as what stands still
    assert pulse.is_lost


def test_two_hearts_do_not_share_a_file_and_one_that_was_taken_leaves_it_alone(tmp_path: Path) -> None:
    file, taken = tmp_path / "heart", []
    with Heart(file, "node1", taken=lambda: taken.append(1)):
        with pytest.raises(FileExistsError), Heart(file, "node2"):
            pytest.fail("both held it")
        file.write_text("node2\n000000000001\n")
        time.sleep(2.5 * BEAT_S)
    assert taken == [1]
    assert file.read_text() == "node2\n000000000001\n"
