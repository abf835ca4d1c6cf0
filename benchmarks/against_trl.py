"""Regroup against TRL's GRPOTrainer, step by step in turns, on the same model, problems, rewards and settings.

    python -m benchmarks.against_trl [--steps 10]

First both losses are compared on the same responses, then TRL's fastest setting is looked for, then each workload is run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.workloads import GROUP_SIZE, NUM_PROMPTS, RESPONSE_LENGTH, WORKLOADS

RESULTS = Path("build/benchmarks/against_trl.json")
MICRO_BATCHES = (8, 16, 32)
PILOT_TOKENS = 16
"""length of the responses on which TRL's settings are compared: their order is that of the whole length"""


@dataclass(frozen=True)
class Setting:
    """How TRL is run."""

    micro_batch: int
    bf16: bool

    @property
    def arguments(self) -> list[str]:
        return ["--micro-batch", str(self.micro_batch), *(["--bf16"] if self.bf16 else [])]

    def __str__(self) -> str:
        return f"micro-batch {self.micro_batch}, {'bf16 autocast' if self.bf16 else 'float32'}"


@dataclass(frozen=True)
class Measured:
    """What a system took for a workload."""

    seconds: list[float]
    peak_mb: float

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def __str__(self) -> str:
        low, high = min(self.seconds), max(self.seconds)
        return f"{self.median:6.2f} s a step ({low:.2f} to {high:.2f}), peak {self.peak_mb:,.0f} MB"


class Contestant:
    """A system in a process of its own, that makes a step when it is told to."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.steps: list[dict[str, Any]] = []

    def step(self) -> float:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print("step", file=self.process.stdin, flush=True)
        for line in self.process.stdout:
            if line.startswith("{"):
                self.steps.append(json.loads(line))
                return float(self.steps[-1]["seconds"])
        raise RuntimeError(f"{self.process.args!r} ended with {self.process.wait()} before its step was done")

    def measured(self, after: int) -> Measured:
        """Of the steps after the first `after`, which set libraries up."""
        return Measured([step["seconds"] for step in self.steps[after:]], self.steps[-1]["peak_mb"])


@contextmanager
def contestant(system: str, workload: str, *arguments: str) -> Iterator[Contestant]:
    command = [sys.executable, "-m", "benchmarks.contestant", system, workload, *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Contestant(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.kill()
        process.wait()


def fastest_setting() -> Setting:
    """TRL's, by one step each."""
    seconds: dict[Setting, float] = {}
    for setting in (Setting(*values) for values in product(MICRO_BATCHES, (True, False))):
        with contestant("trl", "fixed", *setting.arguments, "--response-length", str(PILOT_TOKENS)) as trl:
            seconds[setting] = trl.step()
        print(f"TRL, {setting}: {seconds[setting]:.2f} s a step of {PILOT_TOKENS} tokens", flush=True)
    return min(seconds, key=seconds.__getitem__)


def contest(workload: str, setting: Setting, num_steps: int) -> dict[str, Measured]:
    """Both systems in turns, so that what else the machine does meets both."""
    with ExitStack() as stack:
        systems = {
            "regroup": stack.enter_context(contestant("regroup", workload)),
            "trl": stack.enter_context(contestant("trl", workload, *setting.arguments)),
        }
        for number in range(num_steps + 1):
            for system in systems.values():
                system.step()
            taken = ", ".join(f"{name} {system.steps[-1]['seconds']:.2f} s" for name, system in systems.items())
            print(f"{workload}, step {number}{' (not counted)' if number == 0 else ''}: {taken}", flush=True)
        return {name: system.measured(after=1) for name, system in systems.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10, help="counted steps of each system and workload")
    num_steps = parser.parse_args(arguments).steps
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "benchmarks.agreement"], check=True)  # its memory is gone afterwards
    setting = fastest_setting()
    print(f"TRL's fastest: {setting}", flush=True)
    found = {workload: contest(workload, setting, num_steps) for workload in WORKLOADS}
    memory = max(r["regroup"].peak_mb for r in found.values()) / max(r["trl"].peak_mb for r in found.values())
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(_record(found, setting, memory), indent=2) + "\n")
    print(
        f"\n{NUM_PROMPTS} prompts x {GROUP_SIZE} responses of up to {RESPONSE_LENGTH} tokens, {num_steps} steps each,"
    )
    print(f"{torch.get_num_threads()} threads; {time.perf_counter() - began:.0f} s in all; written to {RESULTS}\n")
    for workload, systems in found.items():
        for name, measured in systems.items():
            print(f"{workload:8} {name:8} {measured}")
    for workload, systems in found.items():
        print(f"ratio {workload} {systems['trl'].median / systems['regroup'].median:.1f}")
    print(f"peak memory ratio {memory:.2f}")


def _record(found: dict[str, dict[str, Measured]], setting: Setting, memory: float) -> dict[str, Any]:
    return {
        "workloads": {
            name: {s: asdict(measured) for s, measured in systems.items()} for name, systems in found.items()
        },
        "trl": asdict(setting),
        "peak_memory_ratio": memory,
        "threads": torch.get_num_threads(),
        "cores": psutil.cpu_count(),
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    main()
