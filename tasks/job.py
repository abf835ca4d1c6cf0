"""Runs one stage's body as a child job, alone or as one of several ranks. `tasks.running.launcher` starts it.

    python -m tasks.job FOLDER

`tasks.running.job_events` describes the files in `FOLDER`. The job ends when its parent process dies.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from tasks.running.allocator import reused_memory
from tasks.running.job_events import JOB, LOOK_EVERY_S, Job, StageKind, Teller
from tasks.running.stage import ALONE, Context
from tasks.stages import policy, reward_model

FAILED = 1

BODIES: dict[StageKind, Callable[[dict[str, Any], Path, Context], None]] = {
    "policy": lambda spec, out_dir, context: policy.body(policy.PolicySpec.model_validate(spec), out_dir, context),
    "reward_model": lambda spec, out_dir, context: reward_model.body(
        reward_model.RewardModelSpec.model_validate(spec), out_dir, context
    ),
}


def main(folder: Path) -> None:
    job = Job.model_validate_json((folder / JOB).read_bytes())
    threading.Thread(target=_exit_with_parent, args=(job.parent,), daemon=True).start()
    is_main = os.environ.get("RANK", "0") == "0"
    with reused_memory(), Teller(folder) if is_main else nullcontext() as teller:
        BODIES[job.stage](job.spec, Path(job.out_dir), ALONE if teller is None else teller.context())


def _exit_with_parent(parent: int) -> None:
    """Exit as soon as the parent process is gone."""
    while _is_alive(parent):
        time.sleep(LOOK_EVERY_S)
    os._exit(FAILED)


def _is_alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    main(Path(sys.argv[1]))
