"""Measures the peak memory of a training step by the number of responses in an update, each case in its own process.

    python -m benchmarks.memory

`generation_rows` and `micro_batch_tokens` are fixed: each batch of rows has four groups, and each pass one, whatever the number of
responses. So only the storage of the responses grows with it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchmarks.contestant import open_student, run_regroup
from benchmarks.results import kept, table
from benchmarks.workloads import WORKLOADS

RESPONSES = (32, 64, 128, 256, 512)
HELD: dict[str, object] = {"grpo_config.generation_rows": 32, "grpo_config.micro_batch_tokens": 640}
VARIANTS: dict[str, dict[str, object]] = {
    "plain": {},
    "activation_checkpointing": {"grpo_config.activation_checkpointing": True},
    "lora": {"grpo_config.lora": "{rank: 16}"},
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step", nargs=2, metavar=("VARIANT", "RESPONSES"), help="measure one in this process")
    given = parser.parse_args(arguments)
    if given.step:
        _run(given.step[0], int(given.step[1]))
    else:
        print(summary())


def _run(variant: str, num_responses: int) -> None:
    workload = WORKLOADS["fixed"]
    workload = replace(workload, num_prompts=num_responses // workload.group_size)
    run_regroup(open_student(workload, workload.settings(**HELD, **VARIANTS[variant])))


def found() -> list[dict[str, Any]]:
    """One row per case; only missing cases are measured."""
    cases = [("plain", size) for size in RESPONSES]
    cases += [(variant, RESPONSES[0]) for variant in VARIANTS if variant != "plain"]
    return [
        {"variant": variant, "responses": size}
        | kept(f"memory/{variant}-{size}", lambda case=(variant, size): step(*case))  # type: ignore[misc]
        for variant, size in cases
    ]


def summary() -> str:
    """The results as a Markdown table."""
    header = ["setting", "responses an update", "peak memory (MB)", "s a step"]
    return table(
        header,
        [[r["variant"], str(r["responses"]), f"{r['peak_mb']:,.0f}", f"{r['seconds']:.1f}"] for r in found()],
    )


def step(variant: str, num_responses: int) -> dict[str, float]:
    """Peak memory and seconds of the second of two steps."""
    command = [sys.executable, "-m", "benchmarks.memory", "--step", variant, str(num_responses)]
    done = subprocess.run(command, input="step\nstep\n", stdout=subprocess.PIPE, text=True, check=True)
    facts = json.loads([line for line in done.stdout.splitlines() if line.startswith("{")][-1])
    return {name: facts[name] for name in ("peak_mb", "seconds")}


if __name__ == "__main__":
    main()
