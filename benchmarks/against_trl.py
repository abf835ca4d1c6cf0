"""Regroup against TRL's GRPOTrainer, step by step in turns, on the same model, problems, rewards and settings.

    python -m benchmarks.against_trl [--steps 10] [--minutes 14] [--workloads fixed] [options of benchmarks.contestant]

On the GPU where there is one. First both losses are compared on the same responses, then TRL's fastest setting is looked for, then each workload is run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict

from benchmarks.processes import MICRO_BATCHES, Measured, Setting, contestant, fastest_setting
from benchmarks.results import FOLDER, machine
from benchmarks.workloads import WORKLOADS
from configs.disk.files import write_json

RESULTS = FOLDER / "against_trl.json"
MIN_STEPS = 3


def contest(
    workload: str, setting: Setting, num_steps: int, limit_s: float, shape: Sequence[str] = ()
) -> dict[str, Measured]:
    """Both systems in turns, so that what else the machine does meets both; where another step would pass `limit_s`, MIN_STEPS must be enough."""
    began = time.perf_counter()
    with ExitStack() as stack:
        systems = {
            "regroup": stack.enter_context(contestant("regroup", workload, *shape)),
            "trl": stack.enter_context(contestant("trl", workload, *shape, *setting.arguments)),
        }
        for number in range(num_steps + 1):
            for system in systems.values():
                system.step()
            taken = ", ".join(f"{name} {system.steps[-1]['seconds']:.2f} s" for name, system in systems.items())
            print(f"{workload}, step {number}{' (not counted)' if number == 0 else ''}: {taken}", flush=True)
            elapsed = time.perf_counter() - began
            if number >= MIN_STEPS and elapsed + elapsed / (number + 1) > limit_s:
                break
        return {name: system.measured(after=1) for name, system in systems.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10, help="counted steps of each system and workload")
    parser.add_argument("--minutes", type=float, default=14, help=f"a slow machine makes fewer, but {MIN_STEPS}")
    parser.add_argument("--workloads", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument(
        "--micro-batches", nargs="+", type=int, default=MICRO_BATCHES, help="of TRL; the fastest is taken"
    )
    given, shape = parser.parse_known_args(arguments)
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "benchmarks.agreement"], check=True)  # its memory is gone afterwards
    setting = fastest_setting(shape, given.micro_batches)
    print(f"TRL's fastest: {setting}", flush=True)
    found: dict[str, dict[str, Measured]] = {}
    for workload in given.workloads:
        left = 60 * given.minutes - (time.perf_counter() - began)
        limit_s = left / (len(given.workloads) - len(found))  # what one leaves is the next one's
        found[workload] = contest(workload, setting, given.steps, limit_s, shape)
    memory = max(r["regroup"].peak_mb for r in found.values()) / max(r["trl"].peak_mb for r in found.values())
    workloads = {name: {s: asdict(m) for s, m in systems.items()} for name, systems in found.items()}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    write_json(
        RESULTS,
        {"workloads": workloads, "trl": asdict(setting), "peak_memory_ratio": memory, "machine": machine()},
    )
    plain = WORKLOADS["fixed"]
    print(
        f"\n{plain.num_prompts} prompts x {plain.group_size} responses of up to {plain.response_length} tokens{', but for ' if shape else ''}{' '.join(shape)},\n{time.perf_counter() - began:.0f} s in all, on {machine()}; written to {RESULTS}\n"
    )
    for workload, systems in found.items():
        for name, measured in systems.items():
            print(f"{workload:8} {name:8} {measured}")
    for workload, systems in found.items():
        print(f"ratio {workload} {systems['trl'].median / systems['regroup'].median:.1f}")
    print(f"peak memory ratio {memory:.2f}")


if __name__ == "__main__":
    main()
