"""Measures the training time of both systems until the quickstart's policy reaches a target dev accuracy.

Both train on the same problems in the same order with the quickstart's rewards, batch size and learning rate. Every few
steps the greedy accuracy is measured, which does not count as training time. Each system samples with its own random
numbers, so the number of steps varies by chance; hence three seeds.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.processes import Contestant, Setting, contestant
from benchmarks.results import kept, table

SYSTEMS = ("regroup", "trl")
SEEDS = (0, 1, 2)
TARGET = 0.35
EXAMINED_EVERY = 3
MAX_STEPS = 30
QUICKSTART = ("--prompts", "8", "--group-size", "8", "--response-length", "24", "--scale", "batch")


def found(trl: Setting) -> dict[str, list[dict[str, Any]]]:
    """For each system, one row per seed: {seconds, steps, curve}; `seconds` is None if the target was not reached.

    Only missing cases are measured.
    """
    return {
        system: [kept(f"time_to_accuracy/{system}-{seed}", partial(measured, system, seed, trl)) for seed in SEEDS]
        for system in SYSTEMS
    }


def measured(system: str, seed: int, trl: Setting) -> dict[str, Any]:
    arguments = [*QUICKSTART, "--seed", str(seed), *(trl.arguments if system == "trl" else [])]
    with contestant(system, "natural", *arguments) as student:
        return reached(student)


def reached(student: Contestant) -> dict[str, Any]:
    """Train until the target accuracy is reached, at most MAX_STEPS; `curve` has (training seconds, accuracy) pairs."""
    seconds, curve = 0.0, [(0.0, student.accuracy())]
    for step in range(1, MAX_STEPS + 1):
        seconds += student.step()
        if step % EXAMINED_EVERY == 0:
            curve.append((seconds, student.accuracy()))
            print(f"step {step}, {seconds:.0f} s: accuracy {curve[-1][1]:.3f}", flush=True)
            if curve[-1][1] >= TARGET:
                return {"seconds": seconds, "steps": step, "curve": curve}
    return {"seconds": None, "steps": MAX_STEPS, "curve": curve}


def summary(trl: Setting) -> str:
    """The results as a Markdown table."""
    results = found(trl)
    rows = []
    for seed, ours, theirs in zip(SEEDS, results["regroup"], results["trl"], strict=True):
        known = ours["seconds"] is not None and theirs["seconds"] is not None
        ratio = f"{theirs['seconds'] / ours['seconds']:.1f}" if known else "-"
        rows.append([str(seed), *(_told(result) for result in (ours, theirs)), ratio])
    return table(["seed", "Regroup", "TRL", "ratio"], rows)


def _told(result: dict[str, Any]) -> str:
    if result["seconds"] is None:
        return f"not in {result['steps']} steps"
    return f"{result['seconds']:.0f} s, {result['steps']} steps ({result['seconds'] / result['steps']:.1f} s each)"
