"""One worker of the checker pool: reads a job a line on standard input, writes a result a line on standard output.

`python -m reward_training.rewards.checker_worker MODULE ...` imports the modules, says ready, and works until its input ends.
It is a program of its own, not a fork: it holds no torch, no locks and no threads of the process that asks.
"""

from __future__ import annotations

import importlib
import json
import logging
import math
import os
import resource
import signal
import sys
from typing import Any, TextIO

from reward_training.answers import checkers

MAX_MEMORY_BYTES = 4 * 2**30
GRACE_S = 5


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks; it closes our input
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    results = _private_output()
    for module in sys.argv[1:]:
        importlib.import_module(module)
    logging.disable(logging.WARNING)  # math-verify warns at each call that the time limit is ours
    _write(results, {"ready": True})
    for line in sys.stdin:
        _write(results, _answer(json.loads(line)))


def _private_output() -> TextIO:
    """Standard output for results alone: what a library prints goes to standard error."""
    sys.stdout.flush()
    results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return results


def _answer(job: dict[str, Any]) -> dict[str, Any]:
    signal.alarm(math.ceil(job["timeout_s"]) + GRACE_S)  # ends a hung check also when nobody is left to kill it
    try:
        return {"value": getattr(checkers, job["checker"])(*job["arguments"])}
    except Exception as error:  # noqa: BLE001 - a checker's failure on a text goes to the asking process as a reason
        return {"error": f"{type(error).__name__}: {error}"[:300]}
    finally:
        signal.alarm(0)


def _write(results: TextIO, message: dict[str, Any]) -> None:
    results.write(json.dumps(message) + "\n")
    results.flush()


if __name__ == "__main__":
    main()
