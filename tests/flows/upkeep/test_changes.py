"""The commands `clean` and `rollback`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from configs.disk.files import write_json
from flows.align import clean_after
from flows.cli import AT_FAULT, BUSY, DONE, main
from tasks.runs.workspace import read_champion, run_folder
from tests.tasks.a_chain import id_of, write_run_of
from tests.tasks.runs.test_workspace import process_that_holds
from tests.tasks.stage_kit import open_in, tiny


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of four rounds, all promoted."""
    monkeypatch.chdir(tmp_path)
    write_run_of(tmp_path, True, True, True, True)
    return tmp_path


def weights(root: Path) -> list[str]:
    return sorted(path.parts[-4] for path in root.glob("runs/tiny/round_*/policy/model/*.safetensors"))


def test_a_dry_run_says_what_a_cleaning_does_and_removes_nothing(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["clean", "--dry-run"]) == DONE
    dry = capsys.readouterr().out.splitlines()
    assert len(weights(workspace)) == 4
    assert main(["clean"]) == DONE
    wet = capsys.readouterr().out.splitlines()
    assert weights(workspace) == ["round_003", "round_004"]
    assert dry[:-1] == wet[:-1]
    assert "stays  0.977 KiB  runs/tiny/round_004/policy/model: champion of the workspace" in wet
    assert "goes   0.977 KiB  runs/tiny/round_001/policy/model: nothing needs it any more" in wet
    # two policies and three reward models of 1000 bytes
    assert (dry[-1], wet[-1]) == ("would free  4.88 KiB of 4.88 KiB", "frees  4.88 KiB of 4.88 KiB")


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        (["--keep-rounds", "3"], ["round_002", "round_003", "round_004"]),
        (["tiny"], ["round_003", "round_004"]),
    ],
)
def test_rounds_to_keep_and_a_run_may_be_named(workspace: Path, arguments: list[str], kept: list[str]) -> None:
    assert main(["clean", *arguments]) == DONE
    assert weights(workspace) == kept


def test_the_configuration_of_the_newest_run_says_how_many_rounds_stay(workspace: Path) -> None:
    path = run_folder(workspace, "tiny") / "run.json"
    file = json.loads(path.read_bytes())
    file["config"]["run"]["keep_rounds"] = 3
    write_json(path, file)
    assert main(["clean"]) == DONE
    assert weights(workspace) == ["round_002", "round_003", "round_004"]


@pytest.mark.parametrize("arguments", [["clean", "gone"], ["clean", "--keep-rounds", "0"], ["rollback", "gone"]])
def test_what_is_not_there_is_a_fault_of_the_command_line(workspace: Path, arguments: list[str]) -> None:
    assert main(arguments) == AT_FAULT


@pytest.mark.parametrize("arguments", [["clean"], ["rollback", "tiny"]])
def test_a_held_workspace_is_left_alone(workspace: Path, arguments: list[str]) -> None:
    with process_that_holds(workspace):
        assert main(arguments) == BUSY
    assert len(weights(workspace)) == 4


def test_an_empty_workspace_is_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["clean"]) == DONE
    assert "there is nothing to clean" in capsys.readouterr().out


@pytest.mark.parametrize(("settings", "kept"), [([], 4), (["run.keep_rounds=3"], 3)])
def test_a_run_cleans_after_itself_as_configured(workspace: Path, settings: list[str], kept: int) -> None:
    run = open_in(workspace, tiny("run.name=next", *settings))
    (run.folder / "run.json").unlink()  # of the chain of `tiny` alone
    clean_after(workspace, run)
    assert len(weights(workspace)) == kept


def test_a_rollback_is_told_by_command_summary_status_and_report(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rollback", "tiny", "--reason", "<b>fooled</b>"]) == DONE
    out = capsys.readouterr().out
    assert f"champion   {id_of('tiny 3')[:12]} from run tiny, round 3" in out
    assert "undo it by regroup rollback tiny --to 4" in out
    summary: dict[str, Any] = json.loads((run_folder(workspace, "tiny") / "summary.json").read_bytes())
    assert summary["champion"]["round"] == 3
    assert summary["rollbacks"][0].endswith(": <b>fooled</b>")
    assert "fooled&lt;/b&gt;" in (run_folder(workspace, "tiny") / "report.html").read_text()
    assert main(["status"]) == DONE
    out = " ".join(capsys.readouterr().out.split())
    assert "done, rolled back" in out
    assert "run tiny was rolled back to round 3 of run tiny on" in out
    assert "<b>fooled</b>" in out
    assert main(["rollback", "tiny", "--to", "4"]) == DONE
    champion = read_champion(workspace)
    assert champion is not None
    assert champion.policy_id == id_of("tiny 4")
