"""What the command line promises before any work starts: help, exit codes, messages."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from configs.errors import ConfigError, StageStopped, WorkspaceBusy
from flows import cli
from flows.cli import main
from tests.paths import TINY
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
