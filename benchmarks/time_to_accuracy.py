"""Training time until the quickstart's policy answers a given share of the dev problems right, of both systems, by seed.

Both train on the same problems in the same order with the quickstart's rules, batch and learning rate; every few steps the greedy accuracy
is taken, which is not counted as time. What a system draws is its own, so the number of steps differs by chance: three seeds.
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
    """By system, a row a seed: {seconds, steps, curve}, measured as far as it has not been; `seconds` is None where the target was
    not reached in MAX_STEPS."""
    return {
        system: [kept(f"time_to_accuracy/{system}-{seed}", partial(measured, system, seed, trl)) for seed in SEEDS]
        for system in SYSTEMS
    }


def measured(system: str, seed: int, trl: Setting) -> dict[str, Any]:
    arguments = [*QUICKSTART, "--seed", str(seed), *(trl.arguments if system == "trl" else [])]
    with contestant(system, "natural", *arguments) as student:
        return reached(student)


def reached(student: Contestant) -> dict[str, Any]:
    """Train until the target is reached; `curve` has (training seconds, accuracy)."""
    seconds, curve = 0.0, [(0.0, student.accuracy())]
    for number in range(1, MAX_STEPS + 1):
        seconds += student.step()
        if number % EXAMINED_EVERY == 0:
            curve.append((seconds, student.accuracy()))
            print(f"step {number}, {seconds:.0f} s: accuracy {curve[-1][1]:.3f}", flush=True)
            if curve[-1][1] >= TARGET:
                return {"seconds": seconds, "steps": number, "curve": curve}
    return {"seconds": None, "steps": MAX_STEPS, "curve": curve}


def summary(trl: Setting) -> str:
    """The table."""
    results = found(trl)
    rows = []
    for seed, ours, theirs in zip(SEEDS, results["regroup"], results["trl"], strict=True):
        known = ours["seconds"] is not None and theirs["seconds"] is not None
        ratio = f"{theirs['seconds'] / ours['seconds']:.1f}" if known else "-"
        rows.append([str(seed), *(_told(each) for each in (ours, theirs)), ratio])
    return table(["seed", "Regroup", "TRL", "ratio"], rows)


def _told(result: dict[str, Any]) -> str:
    if result["seconds"] is None:
        return f"not in {result['steps']} steps"
    return f"{result['seconds']:.0f} s, {result['steps']} steps ({result['seconds'] / result['steps']:.1f} s each)"
