"""What the command line promises before any work starts: help, exit codes, messages."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from configs.errors import ConfigError, StageStopped, WorkspaceBusy
from configs.reader import load_config
from flows import cli, launch
from flows.cli import main
from tasks.running import joining
from tasks.runs.run_file import create_run
from tests.paths import ROOT, TINY
from tests.tasks.stage_kit import open_untold


@pytest.mark.parametrize(
    "command",
    [
        "run",
        "status",
        "doctor",
        "fetch",
        "serve",
        "reward-model",
        "evaluate",
        "sample",
        "export",
        "clean",
        "rollback",
        "report",
        "ui",
        "review",
    ],
)
def test_each_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: regroup {command}")


def test_help_is_quick_because_nothing_heavy_is_imported() -> None:
    code = "import sys; from flows.cli import main; import flows.launch; main(['--help']); sys.exit('torch' in sys.modules or 'prefect' in sys.modules)"
    start = time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("group_size=1"), 2),
        (WorkspaceBusy("held by run 'a'"), 3),
        (StageStopped("stopped after step 3"), 130),
        (KeyboardInterrupt(), 130),
        (RuntimeError("it broke"), 1),
    ],
)
def test_an_error_has_its_exit_code_and_its_message_on_standard_error(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def raises(*args: object) -> None:
        raise error

    monkeypatch.setattr("flows.launch.run_to_the_end", raises)
    assert main(["run", str(TINY)]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert str(error) in err


def test_a_full_disk_is_one_message_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def raises(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "runs/tiny/round_001/policy")

    monkeypatch.setattr("flows.launch.run_to_the_end", raises)
    assert main(["run", str(TINY)]) == 1
    said = capsys.readouterr().err
    assert "No space left on device: 'runs/tiny/round_001/policy'" in said
    assert f"MiB are free in {Path.cwd()}; free some, and the same command goes on from here" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("argv", [["run"], ["walk"], ["run", str(TINY), "--sett", "a=1"], ["serve", str(TINY)]])
def test_a_wrong_call_is_at_fault_and_points_to_help(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == cli.AT_FAULT
    assert "--help" in capsys.readouterr().err


def test_a_faulty_value_ends_2_without_a_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-m", "flows.cli", "run", str(TINY), "--set", "grpo_config.group_size=1"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert "use group_size >= 2" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_status_of_an_empty_workspace_says_how_to_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["status"]) == 0
    assert "regroup run" in capsys.readouterr().out


def test_status_names_the_step_that_an_interrupted_training_goes_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = open_untold(tmp_path)
    assert main(["status"]) == 0
    assert "interrupted, step" not in capsys.readouterr().out
    for step in (20, 40):
        (run.folder / "round_001" / "policy" / "checkpoints" / f"step_{step:06d}").mkdir(parents=True)
    assert main(["status"]) == 0
    assert "interrupted, step 40" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [["sample", "none", "hi"], ["export", "none", "out"], ["report", "none"]])
def test_an_unknown_run_is_named_with_the_known_ones(
    argv: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    assert "no run 'none'" in capsys.readouterr().err


@pytest.mark.parametrize("cron", ["every night", "61 * * * *", ""])
def test_a_faulty_schedule_is_refused_before_anything_starts(
    cron: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / ".prefect"))
    assert main(["serve", str(TINY), "--cron", cron]) == 2
    assert "0 2 * * *" in capsys.readouterr().err


def test_a_name_that_no_folder_should_have_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", str(TINY), "--run", "../elsewhere"]) == 2
    assert "run.name" in capsys.readouterr().err


def test_the_report_of_a_run_that_is_only_read_lies_in_a_temporary_folder(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`regroup report` in a read-only folder ended with a traceback."""
    folder = open_untold(workspace).folder
    monkeypatch.setattr("flows.commands.is_writable", lambda _: False)
    assert main(["report", folder.name]) == 0
    said = capsys.readouterr()
    page = Path(said.out.strip())
    assert page.name == "report.html"
    assert page.read_text().startswith("<!doctype html>")
    assert workspace not in page.parents
    assert "cannot be written to; the report is in a temporary folder" in said.err
    shutil.rmtree(page.parent)


def test_a_module_is_not_replaced_by_a_file_of_the_folder_under_python_m(tmp_path: Path) -> None:
    for name in ("random", "tasks", "configs", "rich"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('taken for another')")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "flows.cli", "status"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_time_zone_that_is_none_ends_2_with_one_that_is(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(TINY), "--cron", "0 2 * * *", "--timezone", "europe/paris"]) == 2
    assert "--timezone 'europe/paris' is no time zone; Europe/Paris" in capsys.readouterr().err
    assert list(workspace.iterdir()) == []


def test_join_of_what_is_no_name_ends_2(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("../../etc", ""):
        assert main(["join", name]) == 2
        assert f"{name!r} is no name of a run; runs there: none" in " ".join(capsys.readouterr().err.split())


def test_join_of_a_run_of_one_machine_says_that_there_is_nothing_to_join(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    create_run(workspace, load_config(TINY))
    asked = iter([False, True])
    monkeypatch.setattr(launch._Finished, "__call__", lambda finished: next(asked))
    monkeypatch.setattr(joining, "LOOK_EVERY_S", 0.01)
    assert main(["join", "tiny"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("run 'tiny' has launcher.num_machines=1: there is nothing to join") == 1


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("bgi", "no run 'bgi' has begun there yet; did you mean 'big'? runs there: big, tiny, zero"),
        ("other", "no run 'other' has begun there yet; runs there: big, tiny, zero"),
        ("big", ""),
    ],
)
def test_join_says_once_that_no_run_of_that_name_has_begun_and_waits_on(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, told: str
) -> None:
    """A mistyped name was waited for without a word."""
    for run in ("tiny", "big", "zero"):
        (workspace / "runs" / run).mkdir(parents=True)
        (workspace / "runs" / run / "run.json").touch()
    asked = iter([False, False, True])
    monkeypatch.setattr(launch._Finished, "__call__", lambda finished: next(asked))
    monkeypatch.setattr(joining, "LOOK_EVERY_S", 0.01)
    assert main(["join", name]) == 0
    assert list(asked) == []
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("no run ") == bool(told)
    assert told in said
