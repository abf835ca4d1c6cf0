"""The workspace lock and the champion."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from configs.errors import ConfigError, WorkspaceBusy
from tasks.runs.workspace import Champion, lock_holder, read_champion, workspace_lock, write_champion

HOLD = """
import sys, time
from pathlib import Path
from tasks.runs.workspace import workspace_lock
with workspace_lock(Path(sys.argv[1]), "other-run"):
    print("held", flush=True)
    time.sleep(60)
"""
FORK = """
import os, sys, time
from pathlib import Path
from tasks.runs.workspace import workspace_lock
with workspace_lock(Path(sys.argv[1]), "parent"):
    if os.fork() == 0:
        time.sleep(20)
        os._exit(0)
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def process_that_holds(root: Path, program: str = HOLD) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", program, str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_a_second_process_is_refused_and_told_who_holds_the_workspace(tmp_path: Path) -> None:
    today = time.strftime("%Y-%m-%d")
    with (
        process_that_holds(tmp_path) as process,
        pytest.raises(
            WorkspaceBusy, match=rf"'other-run' \(process {process.pid}, started {today} .*`kill {process.pid}`"
        ),
        workspace_lock(tmp_path, "mine"),
    ):
        pytest.fail("the lock was given twice")


def test_a_killed_holder_leaves_the_workspace_free(tmp_path: Path) -> None:
    with process_that_holds(tmp_path) as process:
        holder = lock_holder(tmp_path)
        assert holder is not None
        assert (holder.pid, holder.run) == (process.pid, "other-run")
        process.kill()
        process.wait()
        assert lock_holder(tmp_path) is None
        with workspace_lock(tmp_path, "mine"):
            pass


def test_a_forked_child_does_not_keep_the_lock_of_its_killed_parent(tmp_path: Path) -> None:
    with process_that_holds(tmp_path, FORK) as process:
        process.kill()
        process.wait()
        with workspace_lock(tmp_path, "mine"):
            pass


def test_the_lock_is_free_again_after_its_block(tmp_path: Path) -> None:
    with workspace_lock(tmp_path, "first"):
        assert lock_holder(tmp_path) is not None
    with workspace_lock(tmp_path, "second"):
        pass
    assert lock_holder(tmp_path) is None


def test_no_champion_before_the_first_run(tmp_path: Path) -> None:
    assert read_champion(tmp_path) is None


def test_champion_moves_with_its_workspace(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    path = here / "runs" / "tiny" / "round_001" / "policy" / "model"
    write_champion(here, Champion(run="tiny", round=1, policy_id="abc", path=str(path)))
    here.rename(there)
    moved = read_champion(there)
    assert moved is not None
    assert moved.path == str(there / "runs" / "tiny" / "round_001" / "policy" / "model")


def test_broken_champion_file_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "champion.json").write_text("{")
    with pytest.raises(ConfigError, match="remove it to start from the configured policy"):
        read_champion(tmp_path)
