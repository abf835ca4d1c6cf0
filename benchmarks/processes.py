"""Runs each system in its own process (`benchmarks.contestant`), so that they share neither memory nor threads."""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from threading import Timer
from typing import Any

MICRO_BATCHES = (8, 16, 32)
"""TRL's micro-batch sizes to try; with more responses in a step, larger ones may be faster on a GPU"""
PILOT_TOKENS = 16
"""response length on which TRL's settings are compared; at full length they rank the same"""


@dataclass(frozen=True)
class Setting:
    """Micro-batch size and precision of TRL."""

    micro_batch: int
    bf16: bool

    @property
    def arguments(self) -> list[str]:
        return ["--micro-batch", str(self.micro_batch), *(["--bf16"] if self.bf16 else [])]

    def __str__(self) -> str:
        return f"micro-batch {self.micro_batch}, {'bf16 autocast' if self.bf16 else 'float32'}"


@dataclass(frozen=True)
class Measured:
    """Seconds of each counted step and peak memory of a system on a workload."""

    seconds: list[float]
    peak_mb: float

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def __str__(self) -> str:
        low, high = min(self.seconds), max(self.seconds)
        num_steps = len(self.seconds)
        return f"{self.median:6.2f} s a step ({low:.2f} to {high:.2f} in {num_steps}), peak {self.peak_mb:,.0f} MB"


@dataclass
class Contestant:
    """A running system, controlled over its standard input, with the metrics of its steps so far."""

    process: subprocess.Popen[str]
    steps: list[dict[str, Any]] = field(default_factory=list)

    def step(self) -> float:
        """Make a training step; returns its seconds."""
        self.steps.append(self._ask("step"))
        return float(self.steps[-1]["seconds"])

    def step_within(self, limit_s: float) -> float:
        """Make a training step; returns its seconds. After `limit_s` the process is killed and infinity is returned."""
        self._ask("ready")
        timer = Timer(limit_s, self.process.kill) if limit_s < math.inf else None
        if timer is not None:
            timer.start()
        try:
            return self.step()
        except RuntimeError:
            if timer is None or timer.is_alive():
                raise
            return math.inf
        finally:
            if timer is not None:
                timer.cancel()

    def accuracy(self) -> float:
        """Greedy accuracy on the dev problems."""
        return float(self._ask("accuracy")["accuracy"])

    def _ask(self, word: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(word, file=self.process.stdin, flush=True)
        for line in self.process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise RuntimeError(f"{self.process.args!r} ended with {self.process.wait()} before it answered {word!r}")

    def measured(self, after: int) -> Measured:
        """The measurements without the first `after` steps, in which libraries initialize."""
        return Measured([step["seconds"] for step in self.steps[after:]], self.steps[-1]["peak_mb"])


@contextmanager
def contestant(system: str, workload: str, *arguments: str) -> Iterator[Contestant]:
    """Start a system, and kill it at the end of the block; `arguments` are options of `benchmarks.contestant`."""
    command = [sys.executable, "-m", "benchmarks.contestant", system, workload, *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Contestant(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.kill()
        process.wait()


def fastest_setting(shape: Sequence[str] = (), micro_batches: Sequence[int] = MICRO_BATCHES) -> Setting:
    """TRL's fastest setting, by one step of each with PILOT_TOKENS tokens per response.

    `shape` has further options of `benchmarks.contestant`.

    bfloat16 is given up as soon as a step takes twice as long as the fastest so far: a processor without bfloat16 can
    take twenty times as long.
    """
    seconds: dict[Setting, float] = {}
    for setting in (Setting(micro_batch, bf16) for bf16, micro_batch in product((False, True), micro_batches)):
        limit_s = 2 * min(seconds.values()) if seconds else math.inf
        with contestant("trl", "fixed", *shape, *setting.arguments, "--response-length", str(PILOT_TOKENS)) as trl:
            seconds[setting] = trl.step_within(limit_s)
        print(f"TRL, {setting}: {seconds[setting]:.2f} s a step of {PILOT_TOKENS} tokens", flush=True)
        if setting.bf16 and seconds[setting] == math.inf:
            break
    return min(seconds, key=seconds.__getitem__)
