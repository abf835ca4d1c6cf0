"""Compares time and memory of a step in Regroup and in TRL's GRPOTrainer, on the same models, data and settings.

    python -m benchmarks.against_trl [--steps 10] [--minutes 14] [--workloads fixed] [options of benchmarks.contestant]

Runs on the GPU if there is one. First checks that both losses agree on the same responses, then searches TRL's fastest
setting, then runs each workload on both systems, ours also with half of the rows in each update, step by step in turns.
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
from benchmarks.time_to_accuracy import HALF_OF_ROWS
from benchmarks.workloads import WORKLOADS
from configs.disk.files import write_json

RESULTS = FOLDER / "against_trl.json"
OURS, HALF = "regroup", "regroup, half of the rows"
MIN_STEPS = 3


def contest(
    workload: str, setting: Setting, num_steps: int, limit_s: float, shape: Sequence[str] = ()
) -> dict[str, Measured]:
    """Measure both systems, ours with all rows and with half of them, in alternating steps, so that other load on the
    machine affects all alike.

    After MIN_STEPS counted steps, stop as soon as another step would exceed `limit_s`.
    """
    began = time.perf_counter()
    with ExitStack() as stack:
        systems = {
            OURS: stack.enter_context(contestant("regroup", workload, *shape)),
            HALF: stack.enter_context(contestant("regroup", workload, *shape, "--set", HALF_OF_ROWS)),
            "trl": stack.enter_context(contestant("trl", workload, *shape, *setting.arguments)),
        }
        for step in range(num_steps + 1):
            for system in systems.values():
                system.step()
            times = ", ".join(f"{name} {system.steps[-1]['seconds']:.2f} s" for name, system in systems.items())
            print(f"{workload}, step {step}{' (not counted)' if step == 0 else ''}: {times}", flush=True)
            elapsed = time.perf_counter() - began
            if step >= MIN_STEPS and elapsed + elapsed / (step + 1) > limit_s:
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
    subprocess.run([sys.executable, "-m", "benchmarks.agreement"], check=True)  # a process of its own frees its memory
    setting = fastest_setting(shape, given.micro_batches)
    print(f"TRL's fastest: {setting}", flush=True)
    results: dict[str, dict[str, Measured]] = {}
    for workload in given.workloads:
        left = 60 * given.minutes - (time.perf_counter() - began)
        limit_s = left / (len(given.workloads) - len(results))  # time that one workload does not use goes to the next
        results[workload] = contest(workload, setting, given.steps, limit_s, shape)
    memory = max(r[OURS].peak_mb for r in results.values()) / max(r["trl"].peak_mb for r in results.values())
    workloads = {name: {s: asdict(m) for s, m in systems.items()} for name, systems in results.items()}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    write_json(
        RESULTS,
        {"workloads": workloads, "trl": asdict(setting), "peak_memory_ratio": memory, "machine": machine()},
    )
    plain = WORKLOADS["fixed"]
    print(
        f"\n{plain.num_prompts} prompts x {plain.group_size} responses of up to {plain.response_length} tokens{', but for ' if shape else ''}{' '.join(shape)},\n{time.perf_counter() - began:.0f} s in all, on {machine()}; written to {RESULTS}\n"
    )
    for workload, systems in results.items():
        for name, measured in systems.items():
            print(f"{workload:8} {name:25} {measured}")
    for workload, systems in results.items():
        for name in (OURS, HALF):
            rows = name.removeprefix(OURS)
            print(f"ratio {workload}{rows} {systems['trl'].median / systems[name].median:.1f}")
    print(f"peak memory ratio {memory:.2f}")


if __name__ == "__main__":
    main()
