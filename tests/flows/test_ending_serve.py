"""How `regroup serve` and `regroup ui` end what they started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flows import serve

POPEN = subprocess.Popen
SCRIPT = """
import subprocess, time
import psutil
from flows.serve import _ask_runs_to_stop

ended = subprocess.Popen(["true"])
running = subprocess.Popen(["sleep", "60"])
while psutil.Process(ended.pid).status() != psutil.STATUS_ZOMBIE:
    time.sleep(0.01)
_ask_runs_to_stop()
print(ended.wait(), running.wait(10))
"""


def test_a_child_that_has_ended_does_not_keep_the_others_from_being_asked_to_stop() -> None:
    result = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60)
    assert (result.stdout, result.stderr) == ("0 -15\n", "")


def test_signal_while_the_page_of_mlflow_starts_leaves_no_process(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C before the new process was known left it."""
    started: list[subprocess.Popen[bytes]] = []

    def interrupted(command: list[str], **settings: Any) -> subprocess.Popen[bytes]:
        started.append(POPEN(["sleep", "600"], **settings))
        os.kill(os.getpid(), signal.SIGINT)
        return started[-1]

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(serve, "make_ready", lambda uri, warn: None)
    monkeypatch.setattr(subprocess, "Popen", interrupted)
    with pytest.raises(KeyboardInterrupt), serve._mlflow_page(workspace, 0):
        raise AssertionError("it came up")
    assert [process.poll() for process in started] == [-signal.SIGTERM]
