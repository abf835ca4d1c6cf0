"""One rank, or the only process, of trainings on responses that are given: `tests.grpo_train.updating.ranks_kit` starts it.

python -m tests.grpo_train.updating.sharded_program FOLDER
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from configs.disk.checkpoints import Checkpoints
from configs.records import Completion, Policy
from configs.schema.grpo import GrpoConfig
from grpo_train.policies.adapter import Adapter
from grpo_train.policies.model import load_policy, save_policy
from grpo_train.trainer import write_checkpoint
from grpo_train.updating.advantages import group_advantages
from grpo_train.updating.checkpoint import read_components
from grpo_train.updating.learner import Learner
from grpo_train.updating.ranks import Ranks
from tasks.job import _meet_ranks
from tasks.running.allocator import returned_memory, reused_memory

CASES = "cases.json"


def main(folder: Path) -> None:
    if "RANK" in os.environ:
        _meet_ranks(folder / "ranks.store")
    is_split = Ranks().count > 1
    for case in json.loads((folder / CASES).read_bytes()):
        with returned_memory() if is_split else reused_memory():
            told = run(Path(case["folder"]), case, Ranks())
        (Path(case["folder"]) / f"rank_{Ranks().index}.json").write_text(json.dumps(told), encoding="utf-8")


def run(folder: Path, case: dict[str, Any], ranks: Ranks) -> dict[str, Any]:
    """Train as the case says, and save the model in `folder`."""
    grpo = GrpoConfig.model_validate(case["grpo"])
    policy = Policy(path=case["policy"], id="given", round=0)
    sharding = ranks.sharding(grpo.precision)
    model, tokenizer = load_policy(policy.path, device=ranks.device, sharding=sharding)
    adapter = Adapter(model, grpo.lora, seed=0) if grpo.lora else None
    learner = Learner(model, grpo, policy=policy, initial_policy=policy, num_updates=10)
    checkpoints = Checkpoints(folder, fingerprint="work", every=1, keep=9, warn=print)
    first, newest = 1, checkpoints.newest()
    if newest is not None:
        read_components(newest[0], learner.components())
        first = newest[1].step + 1
    steps = []
    for step in range(first, case["num_steps"] + 1):
        steps.append({"step": step} | one_step(learner, case))
        if case["save"]:
            write_checkpoint(checkpoints, step, learner)
    if adapter is not None:
        model = adapter.merge()
    if ranks.is_main or sharding is not None:
        save_policy(model, tokenizer, folder / "model", round_index=1)
    return {"steps": steps, "computed": learner.positions.computed, "held_mib": held_mib(), "peak_mib": peak_mib()}


def one_step(learner: Learner, case: dict[str, Any]) -> dict[str, Any]:
    completions = [Completion.model_validate(each) for each in case["completions"]]
    rewards = np.array(case["rewards"])[:, None]
    metrics = learner.update(completions, group_advantages(rewards, np.ones(1), learner.grpo.group_size))
    found: dict[str, Any] = dict(metrics)
    if case["measure"]:
        found["ratios"] = learner.log_ratios(completions).tolist()
        found["kl_initial"] = learner.kl_initial(completions)
    return found


def held_mib() -> float:
    """Memory that this process has after a step, when the allocator has given back what nothing uses."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return float(psutil.Process().memory_info().rss / 2**20)


def peak_mib() -> float:
    """The most memory that this process has had since it began (on Linux)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return float(status.partition("VmHWM:")[2].split()[0]) / 2**10


if __name__ == "__main__":
    main(Path(sys.argv[1]))
