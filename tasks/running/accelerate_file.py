"""Tells what a configuration file of `accelerate launch` asks for that is not done here.

The ranks take from accelerate who they are and how they reach each other, and nothing else: it would pass over the rest in
silence (FSDP on CPUs, for instance, where each rank then holds the whole model).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

DONE = ("NO", "MULTI_CPU", "MULTI_GPU")
"""values of `distributed_type`: ranks, each with the whole model or, with `launcher.shard`, a part"""
ONE_PROCESS = ("NO", "MULTI_CPU")
"""of them, those by which accelerate starts a single rank, whatever `num_processes` says"""
PLACE = {
    "compute_environment", "debug", "distributed_type", "enable_cpu_affinity", "gpu_ids", "machine_rank", "main_process_ip",
    "main_process_port", "main_training_function", "mpirun_config", "num_machines", "num_processes", "rdzv_backend",
    "same_network", "use_cpu",
}  # fmt: skip
"""keys that say where ranks run"""
OFF = (None, "", "no", "NO", "false", "False", False, 0)
STARTED_BY_TORCHRUN = "drop launcher.config_file: without it torchrun starts as many"
INSTEAD = {
    "fsdp_config": "launcher.shard splits the policy among the ranks",
    "distributed_type": "launcher.shard splits the policy among the ranks",
    "mixed_precision": "grpo_config.precision sets the precision",
}


def not_done(file: Path, num_processes: int) -> str | None:
    """What is asked for, by the file or by `launcher.num_processes`, and would not be done, with the remedy; None if there is
    nothing, or the file is faulty in a way that accelerate tells."""
    try:
        given = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        return f"cannot be read: {error}; write it with `accelerate config`"
    if not isinstance(given, dict):
        return "holds no settings; write it with `accelerate config`"
    kind = str(given.get("distributed_type") or "NO").upper()  # an unquoted NO is false in YAML
    if kind not in DONE:
        return _told("distributed_type", kind)
    if num_processes > 1 and kind in ONE_PROCESS:
        return f"starts one process (distributed_type: {kind}), and launcher.num_processes={num_processes}; {STARTED_BY_TORCHRUN}"
    return next((_told(key, value) for key, value in given.items() if key not in PLACE and _is_on(value)), None)


def _is_on(value: Any) -> bool:
    return (
        bool(set(map(str, value.values())) - set(map(str, OFF))) if isinstance(value, dict) else value not in (*OFF, [])
    )


def _told(key: str, value: Any) -> str:
    instead = INSTEAD.get(key)
    return f"asks for {key}: {value}, which Regroup does not do; take it out" + (f": {instead}" if instead else "")
