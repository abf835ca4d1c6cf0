"""What is told of where no run is open yet."""

from __future__ import annotations

import json
import time
from pathlib import Path
from unittest.mock import MagicMock

import psutil
import pytest

from configs.errors import ConfigError, WorkspaceBusy
from configs.reader import load_config
from flows import session
from flows.session import telling_of_failures
from tasks.alerting.outbox import Outbox
from tasks.runs.run_file import open_run
from tests.paths import TINY


@pytest.mark.parametrize(
    ("error", "happening"),
    [(WorkspaceBusy("held by run 'other'"), "run.skipped"), (ConfigError("rounds is 1, was 2"), "run.failed")],
)
def test_a_run_that_did_not_start_is_told_of_and_raises_on(tmp_path: Path, error: Exception, happening: str) -> None:
    with pytest.raises(type(error)), telling_of_failures(tmp_path, load_config(TINY)):
        raise error
    [alert] = Outbox(tmp_path).alerts()
    assert (alert.happening, alert.run) == (happening, "tiny")
    assert str(error) in alert.text


def test_a_run_that_starts_is_not(tmp_path: Path) -> None:
    with telling_of_failures(tmp_path, load_config(TINY)):
        pass
    assert Outbox(tmp_path).alerts() == []


def test_a_failure_is_told_also_where_the_end_itself_fails(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a full disk, where neither the summary nor MLflow's record of the run can be written."""

    def full(*_args: object, **_more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(session, "_sum_up", full)
    monkeypatch.setattr(session.Tracking, "finish", full)
    told = workspace / "told.jsonl"
    alert = {"on": "run.failed", "command": ["sh", "-c", f"cat >> {told}"]}
    config = load_config(TINY, [f"alerts=[{json.dumps(alert)}]"])
    file = open_run(workspace, config)
    with pytest.raises(OSError, match="No space left"), session.working_on(workspace, file, sums_up=True):
        raise RuntimeError("the model is lost")
    [message] = [json.loads(line) for line in told.read_text().splitlines()]
    assert message["event"] == "regroup.run.failed"
    assert "the model is lost" in message["text"]


def test_the_time_of_a_process_that_works_on_several_runs_counts_once(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run counted from the start of the process: of three runs of 25 s in a comparison the last one had taken 75 s."""
    monkeypatch.setattr(session, "_previous_ended_s", None)
    monkeypatch.setattr(session, "Tracking", lambda *_args, **_more: MagicMock(lack=None))
    calls = []
    for name in ("one", "two"):
        with session.working_on(workspace, open_run(workspace, load_config(TINY, [f"run.name={name}"]))) as run:
            calls.append((run.clock.started, time.time()))
    (first, within_first), (second, within_second) = calls
    assert first == pytest.approx(psutil.Process().create_time())
    assert within_first <= second <= within_second
