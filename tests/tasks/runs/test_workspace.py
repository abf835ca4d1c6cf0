"""The workspace lock and the champion."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from configs.disk import heartbeat
from configs.errors import ConfigError, WorkspaceBusy
from tasks.runs.workspace import (
    Champion,
    lock_holder,
    read_champion,
    refuse_unwritable,
    refuse_when_held,
    workspace_lock,
    write_champion,
)

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


ELSEWHERE = f"""
import fcntl
from tasks.runs import workspace
workspace.machine_id = lambda: "another"
workspace.socket.gethostname = lambda: "node2"
fcntl.flock = lambda *_: None
{HOLD}
"""
"""a machine on whose locks this one's file system keeps no eye"""


def test_a_holder_on_another_machine_is_named_although_the_lock_is_free_here(tmp_path: Path) -> None:
    with process_that_holds(tmp_path, ELSEWHERE) as process:
        named = rf"held by run 'other-run' on machine node2 \(process {process.pid}, .*`kill {process.pid}` there"
        with pytest.raises(WorkspaceBusy, match=named):
            refuse_when_held(tmp_path)
        with pytest.raises(WorkspaceBusy, match=named), workspace_lock(tmp_path, "mine"):
            pytest.fail("two machines held it")


def test_what_a_dead_machine_left_is_taken_over_once_it_has_been_silent(tmp_path: Path, monkeypatch) -> None:
    with process_that_holds(tmp_path, ELSEWHERE) as process:
        process.kill()
        process.wait()
    monkeypatch.setattr(heartbeat, "LOST_AFTER_S", 2.5)
    began = time.monotonic()
    with workspace_lock(tmp_path, "mine") as name_another:
        assert 2.5 < time.monotonic() - began < 10
        name_another("renamed")
        assert json.loads((heartbeat.header_of(tmp_path / "runs/.heart")) or "")["run"] == "renamed"
    assert not (tmp_path / "runs/.heart").exists()
    began = time.monotonic()
    with workspace_lock(tmp_path, "mine"):
        assert time.monotonic() - began < 2.5


def test_a_holder_that_was_taken_over_stops(tmp_path: Path) -> None:
    """A machine that was cut off for a while must not write beside the one that took its place."""
    with process_that_holds(tmp_path) as process:
        (tmp_path / "runs/.heart").unlink()
        with heartbeat.Heart(tmp_path / "runs/.heart", "{}"):
            assert process.wait(30) == -signal.SIGTERM


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


def test_the_holder_is_the_run_that_is_worked_on(tmp_path: Path) -> None:
    """A schedule holds the workspace in the name of its chain until it knows which run comes next."""
    with workspace_lock(tmp_path, "tiny") as held_for:
        held_for("tiny-0005")
        holder = lock_holder(tmp_path)
    assert holder is not None
    assert (holder.run, str(holder)) == ("tiny-0005", "run 'tiny-0005'")


def test_a_command_that_is_no_run_is_named(tmp_path: Path) -> None:
    with workspace_lock(tmp_path, "tiny", command="clean"):
        holder = lock_holder(tmp_path)
    assert str(holder) == "`regroup clean` of run 'tiny'"


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


def test_a_folder_in_the_place_of_the_champions_file_is_told_with_a_remedy(tmp_path: Path) -> None:
    """An earlier version let a run have the name champion.json, after which each command ended with a traceback."""
    (tmp_path / "runs/champion.json").mkdir(parents=True)
    with pytest.raises(
        ConfigError, match=r"champion\.json is a folder.*move it away: mv .*champion\.json .*champion-run"
    ):
        read_champion(tmp_path)


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders to be taken for read-only, with what is in them: the superuser may write to any."""
    folders: list[Path] = []
    writing, access, opening = os.O_WRONLY | os.O_RDWR | os.O_CREAT, os.access, os.open

    def is_below(path: object) -> bool:
        return isinstance(path, str | Path) and any(Path(path).is_relative_to(folder) for folder in folders)

    def no_access(path: Path, mode: int) -> bool:
        return access(path, mode) and not (mode & os.W_OK and is_below(path))

    def no_opening(path: Path, flags: int, *rest: int) -> int:
        if flags & writing and is_below(path):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return opening(path, flags, *rest)

    monkeypatch.setattr(os, "access", no_access)
    monkeypatch.setattr(os, "open", no_opening)
    return folders


def test_the_holder_of_a_folder_that_is_only_read_is_told(tmp_path: Path, read_only: list[Path]) -> None:
    """The lock's file was opened for writing to look who holds it: `status` ended with a traceback."""
    with workspace_lock(tmp_path, "mine"):
        pass
    with process_that_holds(tmp_path) as process:
        read_only.append(tmp_path)
        holder = lock_holder(tmp_path)
        assert holder is not None
        assert (holder.pid, holder.run) == (process.pid, "other-run")
    assert lock_holder(tmp_path) is None


@pytest.mark.parametrize("folder", ["", "runs", ".prefect"])
def test_work_in_a_folder_that_is_only_read_is_refused(tmp_path: Path, read_only: list[Path], folder: str) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / ".prefect").mkdir()
    refuse_unwritable(tmp_path)
    refuse_unwritable(tmp_path / "not" / "yet" / "there")
    read_only.append(tmp_path / folder)
    with pytest.raises(ConfigError, match=rf"{tmp_path / folder} cannot be written to; work in another folder"):
        refuse_unwritable(tmp_path)
