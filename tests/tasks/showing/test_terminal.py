"""Progress lines, the log file and the table of rounds."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tasks.showing import terminal
from tasks.showing.tables import rounds_table, sources_table
from tasks.showing.terminal import StageProgress, Terminal, clock, log_to


def _terminal(*, tty: bool = False) -> tuple[Terminal, io.StringIO, io.StringIO]:
    out, err = io.StringIO(), io.StringIO()
    consoles = [Console(file=file, width=80, force_terminal=tty, force_interactive=tty) for file in (out, err)]
    return Terminal(out=consoles[0], err=consoles[1]), out, err


def _summary() -> dict[str, Any]:
    accuracy = {"estimate": 0.72, "low": 0.6, "high": 0.83, "n": 60}
    row = {
        "policy_id": "0123456789abcdef",
        "promoted": True,
        "reward_models": {"quality": {"id": "x", "accuracy": accuracy, "accepted": True}},
        "evaluation": {
            "test/greedy_accuracy": {"estimate": 0.289, "low": 0.234, "high": 0.345, "n": 256},
            "dev/greedy_accuracy": {"estimate": 0.31, "low": 0.2, "high": 0.4, "n": 128},
        },
        "advantage_share": {"correct": 0.81, "quality": 0.12, "brief": 0.07},
        "seconds": {"policy": 240.0, "evaluate": 60.0},
    }
    first = row | {"round": 0, "reward_models": {}, "advantage_share": {}, "policy_id": "fedcba9876543210"}
    champion = {"policy_id": "0123456789abcdef", "round": 1, "path": "x"}
    return {"run": "demo", "status": "done", "champion": champion, "rounds": [first, row | {"round": 1}]}


@pytest.mark.parametrize(("seconds", "text"), [(7, "0:07"), (725, "12:05"), (3729, "1:02:09"), (59.6, "1:00")])
def test_clock_shows_minutes_and_seconds(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_a_note_ends_when_units_are_done() -> None:
    progress = StageProgress("round 1 · policy", 40, "updates", lambda _: None)
    progress.say("warming up the value model")
    progress.set(0)
    assert progress.line().endswith("(warming up the value model)")
    progress.set(1)
    assert "warming up" not in progress.line()


def test_progress_line_tells_count_rate_and_remaining_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now)
    progress = StageProgress("round 1 · policy", 40, "updates", lambda _: None)
    now = 120.0
    progress.set(10)
    progress.say("sampling")
    # 10 updates in 20 s: 2 s each, 30 more take 60 s
    assert progress.line() == "round 1 · policy: 10/40 updates, 2.0 s each, 1:00 left (sampling)"


def test_away_from_a_terminal_lines_are_throttled(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now)
    shown, _, err = _terminal()
    with shown.stage("round 1 · policy", total=60, unit="updates") as progress:
        for second in range(1, 61):
            now = float(second)
            progress.set(second)
    lines = err.getvalue().splitlines()
    # one line each 15 s, and the last one
    assert [line.split(": ")[1].split(" ")[0] for line in lines] == ["15/60", "30/60", "45/60", "60/60", "done"]


def test_on_a_terminal_a_bar_is_drawn_and_a_line_remains() -> None:
    shown, _, err = _terminal(tty=True)
    with shown.stage("round 1 · policy", total=2, unit="updates") as progress:
        progress.set(2)
    assert "2/2 updates" in err.getvalue()
    assert "round 1 · policy: done in 0:00, 2 updates" in err.getvalue()


def test_progress_leaves_standard_output_alone() -> None:
    shown, out, _ = _terminal()
    with shown.stage("round 1 · policy"):
        shown.warn("look at this")
    shown.print_path(Path("runs") / ("x" * 100) / "summary.json")
    assert out.getvalue() == f"runs/{'x' * 100}/summary.json\n"


def test_log_file_gets_our_lines_and_those_of_libraries(tmp_path: Path) -> None:
    shown, _, err = _terminal()
    library = logging.getLogger("httpx")
    with log_to(tmp_path / "log.txt"):
        shown.say("round 1")
        library.warning("slow answer")
        library.info("request sent")
    library.warning("after the run")
    text = (tmp_path / "log.txt").read_text()
    assert [line.split(": ")[1] for line in text.splitlines()] == ["round 1", "slow answer"]
    assert "slow answer" not in err.getvalue()


def test_rounds_table_fits_80_columns_and_shows_what_decides() -> None:
    shown, out, _ = _terminal()
    shown.print(rounds_table(_summary()))
    text = out.getvalue()
    assert max(len(line) for line in text.splitlines()) <= 80
    for part in (
        "01234567",
        "baseline",
        "promoted",
        "champion",
        "0.289",
        "0.310",
        "0.23-0.34",
        "quality 0.72 ok",
        "correct 81%",
        "5.0",
    ):
        assert part in text


def test_accuracy_by_source_has_a_table_where_there_are_several() -> None:
    summary = _summary()
    assert sources_table(summary) is None
    for row in summary["rounds"]:
        row["evaluation"] |= {
            f"{split}/greedy_accuracy/{source}": {"estimate": share, "low": share - 0.1, "high": share + 0.1, "n": n}
            for split, source, share, n in (
                ("dev", "math", 0.5, 40),
                ("test", "math", 0.25, 80),
                ("dev", "code", 0.125, 24),
            )
        }
    shown, out, _ = _terminal()
    shown.print(sources_table(summary))
    text = out.getvalue()
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "0.250 [0.150, 0.350], n = 80" in text
    assert "0.125 [0.025, 0.225], n = 24" in text
    assert text.count("code") == text.count("math") == 2
