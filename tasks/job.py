"""Runs one stage's body as a child job, alone or as one of several ranks. `tasks.running.launcher` starts it.

    python -m tasks.job FOLDER [LAUNCHER]

`tasks.running.job_events` describes the files in `FOLDER`. The job ends when its parent process dies, or LAUNCHER, the process on
this machine that launched it; without one, when the flow's heart stops.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import PartialState
from torch._C._distributed_c10d import FileStore

from configs.disk.heartbeat import Pulse
from configs.errors import ConfigError
from configs.schema.run import LauncherConfig
from reward_training.transformer.precision import pick_device
from tasks.running.accelerate_file import STARTED_BY_TORCHRUN
from tasks.running.allocator import returned_memory, reused_memory
from tasks.running.job_events import HEART, LOOK_EVERY_S, RANKS, STOP, StageKind, Teller, read_job
from tasks.running.safe_path import give_up_safe_path
from tasks.running.stage import ALONE, Context

FAILED = 1


def main(folder: Path, launcher: int | None) -> None:
    flow = Pulse(folder / HEART)
    lives = (lambda: not flow.is_lost) if launcher is None else (lambda: _is_alive(launcher))
    threading.Thread(target=_exit_when_alone, args=(os.getppid(), lives), daemon=True).start()
    job = read_job(folder)
    give_up_safe_path()
    if job.stores is not None and "RANK" in os.environ:
        _meet_ranks(Path(job.stores) / RANKS)
    is_main = os.environ.get("RANK", "0") == "0"
    memory = returned_memory() if job.launcher.shard else reused_memory()
    with memory, Teller(folder) if is_main else nullcontext() as teller:
        if job.stage == "policy" and job.launcher.config_file is not None:
            _refuse_other_count(job.launcher, int(os.environ.get("WORLD_SIZE", "1")))
        _run(job.stage, job.spec, Path(job.out_dir), teller.context() if teller else _beside(folder))


def _run(stage: StageKind, spec: dict[str, Any], out_dir: Path, context: Context) -> None:
    """The stage's body. Its module alone is imported: what reward models need besides (TRL, pandas, Prefect) takes 120 MB a rank."""
    if stage == "policy":
        from tasks.stages import policy

        policy.body(policy.PolicySpec.model_validate(spec), out_dir, context)
    elif stage == "cold_start":
        from tasks.stages.cold_start import stage as cold_start

        cold_start.body(cold_start.ColdStartSpec.model_validate(spec), out_dir, context)
    else:
        from tasks.stages import reward_model

        reward_model.body(reward_model.RewardModelSpec.model_validate(spec), out_dir, context)


def _refuse_other_count(launcher: LauncherConfig, started: int) -> None:
    """accelerate starts one process where its file does not ask for ranks in its own way, and says nothing."""
    if started != launcher.num_processes:
        raise ConfigError(
            f"launcher.num_processes={launcher.num_processes}, and {launcher.config_file} made accelerate start {started}; "
            f"{STARTED_BY_TORCHRUN}"
        )


def _beside(folder: Path) -> Context:
    """What a rank beside the main one may call: it tells nothing, and stops while it waits for a server."""
    return replace(ALONE, should_stop=(folder / STOP).exists)


def _meet_ranks(file: Path) -> None:
    """Join the process group of all ranks by a file, where torch would by default open a port on all interfaces."""
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    PartialState(cpu=pick_device().type == "cpu", store=FileStore(str(file), count), rank=rank, world_size=count)


def _exit_when_alone(parent: int, launcher_lives: Callable[[], bool]) -> None:
    """Exit as soon as the parent process, such as torchrun's agent, or the launcher is gone."""
    while os.getppid() == parent and launcher_lives():
        time.sleep(LOOK_EVERY_S)
    os._exit(FAILED)


def _is_alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None)
