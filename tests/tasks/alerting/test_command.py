"""`regroup alerts`: what happened, and whether receivers can be told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.cli import AT_FAULT, DONE, main
from tasks.alerting.alerts import Alerts
from tests.paths import TINY
from tests.tasks.alerting.hook import listening


def _config(root: Path, alerts: str) -> str:
    path = root / "mini.yaml"
    path.write_text(f"{TINY.read_text()}\nalerts:\n{alerts}")
    return str(path)


def test_each_receiver_gets_a_test_message(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = _config(
        workspace,
        "  - {on: run.failed, webhook_env: MY_HOOK}\n  - {on: run.finished, command: [sh, -c, 'cat > told.json']}\n",
    )
    with listening() as hook:
        monkeypatch.setenv("MY_HOOK", hook.address)
        assert main(["alerts", config, "--test"]) == DONE
        assert hook.events == ["regroup.test"]
    message = json.loads((workspace / "told.json").read_text())
    assert message["text"] == "Regroup: run mini: a test of this receiver, which is told of run.finished"


def test_a_receiver_that_was_not_told_is_a_fault(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MY_HOOK", raising=False)
    config = _config(
        workspace,
        "  - {on: run.failed, webhook_env: MY_HOOK}\n  - {on: run.failed, command: [sh, -c, 'echo no route >&2; exit 4']}\n"
        "  - {on: run.failed, command: ['true']}\n",
    )
    assert main(["alerts", config, "--test"]) == AT_FAULT
    said = capsys.readouterr()
    assert "webhook:MY_HOOK: webhook_env=MY_HOOK is not set; export" in said.err
    assert 'exit 4"]: no route' in said.err
    assert 'command:["true"] was told' in said.out


@pytest.mark.parametrize("arguments", [["--test"], [str(TINY)]])
def test_a_configuration_and_the_test_go_together(workspace: Path, arguments: list[str]) -> None:
    assert main(["alerts", *arguments]) == AT_FAULT


def test_a_test_without_receivers_says_how_to_name_one(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["alerts", str(TINY), "--test"]) == AT_FAULT
    assert "alerts: [{on: run.failed, webhook_env: SLACK_WEBHOOK}]" in capsys.readouterr().err


def test_the_last_happenings_are_shown_with_who_is_not_told_yet(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["alerts"]) == DONE
    assert "nothing to tell of happened" in capsys.readouterr().out.replace("\n", " ")
    alerts = Alerts(workspace, [], run="mini", uid="u", flow_run="f", warn=lambda _: None)  # no Prefect server is there
    alerts.tell("run.finished", "finished", which=1)
    alerts.finish()
    assert main(["alerts"]) == DONE
    shown = capsys.readouterr().out
    assert "run.finished" in shown
    assert "run mini: finished" in shown
    assert "prefect" in shown
