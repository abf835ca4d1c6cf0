"""Systems in processes of their own, so that neither's memory or threads meet the other's; `benchmarks.contestant` is what runs there."""

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
"""of TRL; on a GPU with more responses a step larger ones are worth a try"""
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
        number = len(self.seconds)
        return f"{self.median:6.2f} s a step ({low:.2f} to {high:.2f} in {number}), peak {self.peak_mb:,.0f} MB"


@dataclass
class Contestant:
    """A system that does something when it is told to."""

    process: subprocess.Popen[str]
    steps: list[dict[str, Any]] = field(default_factory=list)

    def step(self) -> float:
        """Seconds of a training step."""
        self.steps.append(self._ask("step"))
        return float(self.steps[-1]["seconds"])

    def step_within(self, limit_s: float) -> float:
        """Seconds of a training step; infinity, and the end of the system, where it takes longer than `limit_s`."""
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
        """On the dev problems, greedy."""
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
        """Of the steps after the first `after`, which set libraries up."""
        return Measured([step["seconds"] for step in self.steps[after:]], self.steps[-1]["peak_mb"])


@contextmanager
def contestant(system: str, workload: str, *arguments: str) -> Iterator[Contestant]:
    """A system at work, ended afterwards; `arguments` are `benchmarks.contestant`'s."""
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
    """TRL's, by one step each, with responses of PILOT_TOKENS; `shape` has `benchmarks.contestant`'s options for the rest.

    bfloat16 is left as soon as a step in it takes twice as long as the fastest: a processor without it can take twenty times as long.
    """
    seconds: dict[Setting, float] = {}
    for setting in (Setting(micro_batch, bf16) for bf16, micro_batch in product((False, True), micro_batches)):
        limit = 2 * min(seconds.values()) if seconds else math.inf
        with contestant("trl", "fixed", *shape, *setting.arguments, "--response-length", str(PILOT_TOKENS)) as trl:
            seconds[setting] = trl.step_within(limit)
        print(f"TRL, {setting}: {seconds[setting]:.2f} s a step of {PILOT_TOKENS} tokens", flush=True)
        if setting.bf16 and seconds[setting] == math.inf:
            break
    return min(seconds, key=seconds.__getitem__)
