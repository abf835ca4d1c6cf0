"""What a run's time went into, over several calls."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from configs.disk.files import read_manifest
from configs.errors import StageStopped
from tasks.running.clock import Clock
from tasks.running.run import Run
from tasks.running.stage import Context, run_stage
from tasks.runs.times import CallTime, note_call, run_time
from tests.tasks.stage_kit import LetterSpec, ResumableSpec, open_untold, tiny, write_resumable_letters


def _call(root: Path, name: int) -> Run:
    """The run as a call of its own opens it that starts now."""
    return replace(open_untold(root), clock=Clock(started=time.time() - name / 1000))


def _stop_after(last: int) -> Callable[[int], None]:
    def then(step: int) -> None:
        time.sleep(0.05)
        if step == last:
            raise StageStopped("stopped")

    return then


def test_a_stage_that_went_on_counts_the_work_of_both_calls_and_no_pause(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "tiny" / "round_001" / "policy"
    spec = ResumableSpec(config=tiny(), round=1)
    with pytest.raises(StageStopped):  # at step 5, so that the checkpoint of step 4 keeps 0.2 s and 0.05 s are lost
        run_stage(_call(tmp_path, 1), spec, folder, partial(write_resumable_letters, seconds=1, then=_stop_after(5)))
    time.sleep(0.4)
    run_stage(_call(tmp_path, 2), spec, folder, partial(write_resumable_letters, seconds=1, then=_stop_after(9)))
    manifest = read_manifest(folder)
    assert manifest is not None
    assert manifest.worked_s == manifest.seconds == pytest.approx(0.25, abs=0.1)  # 5 steps, not 0.4 s more
    spent = run_time(tmp_path / "runs" / "tiny")
    assert spent.stages == manifest.seconds
    assert 0.02 < spent.lost < 0.15
    assert spent.whole == pytest.approx(spent.stages + spent.lost + spent.bookkeeping)
    assert spent.whole < 0.7


def test_a_stage_that_began_anew_counts_its_last_attempt_and_the_others_as_lost(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "tiny" / "round_001" / "evaluate"

    def body(spec: LetterSpec, out_dir: Path, context: Context, *, fails: bool) -> None:
        time.sleep(0.1)
        if fails:
            raise OSError("no space left")

    spec = LetterSpec(config=tiny(), round=1)
    for number in (1, 2):
        with pytest.raises(OSError, match="no space"):
            run_stage(_call(tmp_path, number), spec, folder, partial(body, fails=True))
    run_stage(_call(tmp_path, 3), spec, folder, partial(body, fails=False))
    spent = run_time(tmp_path / "runs" / "tiny")
    assert (spent.stages, spent.lost) == (pytest.approx(0.1, abs=0.04), pytest.approx(0.2, abs=0.06))


def test_the_last_line_of_each_call_counts_and_a_torn_one_does_not(tmp_path: Path) -> None:
    note_call(tmp_path, CallTime(call="a", whole=10, work=0))
    note_call(tmp_path, CallTime(call="a", whole=30, work=15))
    note_call(tmp_path, CallTime(call="b", whole=5, work=2))
    with (tmp_path / "calls.jsonl").open("a") as file:
        file.write('{"call": "b", "who')
    note_call(tmp_path, CallTime(call="b", whole=7, work=3))
    spent = run_time(tmp_path)
    # no stage is finished: 15 + 3 of work led to nothing, and (30 - 15) + (7 - 3) were bookkeeping
    assert (spent.stages, spent.lost, spent.bookkeeping, spent.whole) == (0.0, 18.0, 19.0, 37.0)


def test_a_run_without_notes_took_what_its_stages_took(tmp_path: Path) -> None:
    spent = run_time(tmp_path)
    assert spent.whole == spent.stages == 0.0
