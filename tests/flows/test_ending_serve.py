"""How `regroup serve` ends the runs that it started."""

from __future__ import annotations

import subprocess
import sys

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
