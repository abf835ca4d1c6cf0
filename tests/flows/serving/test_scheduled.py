"""What serve says when the process of a scheduled run has ended."""

from __future__ import annotations

from pathlib import Path

from flows.serving.scheduled import FOLDER, Scheduled, last_line, leave, left_behind, take


def test_what_a_run_left_is_said_once(tmp_path: Path) -> None:
    leave(tmp_path, "id", Scheduled(run="tiny-0002"))
    leave(tmp_path, "id", Scheduled(run="tiny-0002", outcome="done"))
    assert last_line(take(tmp_path, "id"), 0) == "tiny-0002: done"
    assert take(tmp_path, "id") == Scheduled()
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_a_process_that_ended_without_a_word_is_spoken_for() -> None:
    assert last_line(Scheduled(run="tiny"), -9) == (
        "tiny: its process was ended by SIGKILL before it was done; the next scheduled run goes on with it; its log is runs/tiny/log.txt"
    )
    assert last_line(Scheduled(), 1) == (
        "scheduled run: its process ended with exit code 1 before it began; the next one tries again; Prefect's page has its log"
    )


def test_runs_that_outlived_their_serve_are_said_at_the_next_start(tmp_path: Path) -> None:
    leave(tmp_path, "1", Scheduled(run="tiny", outcome="done"))
    leave(tmp_path, "2", Scheduled(run="tiny-0002"))
    assert left_behind(tmp_path, is_held=True) == ["tiny: done"]
    [line] = left_behind(tmp_path, is_held=False)
    assert line.startswith("tiny-0002: its process ended before it was done; the next scheduled run goes on with it")
    assert left_behind(tmp_path, is_held=False) == []
