"""The program that each worker of the checker pool runs: jobs from standard input, results to standard output.

`python -m reward_training.rewards.checker_worker MODULE ...` imports the modules, writes that it is ready, and then
answers jobs until its input ends. Jobs and results are one line of JSON each. The pool starts it as a new program and
does not fork, so a worker has no torch in memory and none of the parent's locks and threads.
"""

from __future__ import annotations

import importlib
import json
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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then kills us
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    results = private_output()
    for module in sys.argv[1:]:
        importlib.import_module(module)
    _write(results, {"ready": True})
    for line in sys.stdin:
        _write(results, _answer(json.loads(line)))


def private_output() -> TextIO:
    """Return a private copy of standard output for the results; from here on libraries print to standard error."""
    sys.stdout.flush()
    results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return results


def _answer(job: dict[str, Any]) -> dict[str, Any]:
    # The parent enforces the time limit. The alarm ends a hung check where the parent itself has been killed.
    signal.alarm(math.ceil(job["timeout_s"]) + GRACE_S)
    try:
        return {"value": getattr(checkers, job["checker"])(*job["arguments"])}
    except Exception as error:  # noqa: BLE001 - whatever a checker raises on a text is sent to the parent as the reason
        return {"error": f"{type(error).__name__}: {error}"[:300]}
    finally:
        signal.alarm(0)


def _write(results: TextIO, message: dict[str, Any]) -> None:
    results.write(json.dumps(message) + "\n")
    results.flush()


if __name__ == "__main__":
    main()
