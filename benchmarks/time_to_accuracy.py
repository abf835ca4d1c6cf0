"""Measures the training time of both systems until the quickstart's policy reaches a target dev accuracy.

    python -m benchmarks.time_to_accuracy [contestants]

All train on the same problems with the quickstart's rewards, batch size and learning rate; Regroup also with half of the
rows in each update, and with these and problems picked by predicted pass rates. Every few steps the greedy accuracy is
measured, which does not count as training time. Each contestant samples with its own random numbers, so the number of
steps varies by chance; hence five seeds. The accuracy after as many seconds varies less: it is told beside, as a difference.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from benchmarks.processes import Contestant, Setting, contestant, fastest_setting
from benchmarks.results import kept, table
from configs.records import Estimate
from tasks.comparing.intervals import over_seeds

HALF_OF_ROWS = "grpo_config.row_sampling.share=0.5"
PREDICTED = "curriculum={kind: predicted}"
CONTESTANTS = {
    "regroup": [],
    "regroup_half": ["--set", HALF_OF_ROWS],
    "regroup_half_predicted": ["--set", HALF_OF_ROWS, PREDICTED],
    "trl": [],
}
"""{name: further options}"""
TITLES = {
    "regroup": "Regroup",
    "regroup_half": "half of the rows",
    "regroup_half_predicted": "these and predicted problems",
    "trl": "TRL",
}
SEEDS = (0, 1, 2, 3, 4)
TARGET = 0.35
EXAMINED_EVERY = 3
MAX_STEPS = 30
QUICKSTART = ("--prompts", "8", "--group-size", "8", "--response-length", "24", "--scale", "batch")

EQUAL_SECONDS = 30.0

Reached = dict[str, Any]
"""{seconds, steps, curve}; `seconds` is None if the target was not reached"""


def trl_setting() -> Setting:
    """TRL's fastest setting, found once."""
    stored = kept("trl_setting", lambda: asdict(fastest_setting()))
    return Setting(stored["micro_batch"], stored["bf16"])


def found(trl: Setting, names: Sequence[str] = tuple(CONTESTANTS)) -> dict[str, list[Reached]]:
    """For each contestant, what it reached with each seed. Only missing cases are measured."""
    results: dict[str, list[Reached]] = {name: [] for name in names}
    for seed in SEEDS:
        for name, rows in results.items():
            rows.append(kept(f"time_to_accuracy/{name}-{seed}", partial(measured, name, seed, trl)))
    return results


def measured(name: str, seed: int, trl: Setting) -> Reached:
    arguments = [*QUICKSTART, "--seed", str(seed), *CONTESTANTS[name], *(trl.arguments if name == "trl" else [])]
    with contestant("trl" if name == "trl" else "regroup", "natural", *arguments) as student:
        return reached(student)


def reached(student: Contestant) -> Reached:
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


def summary(results: Mapping[str, Sequence[Reached]]) -> str:
    """The results as a Markdown table, and the ratios over seeds below it."""
    rows = [
        [str(seed), *(_told(result) for result in of_seed)]
        for seed, of_seed in zip(SEEDS, zip(*results.values(), strict=True), strict=False)
    ]
    lines = [table(["seed", *(TITLES[name] for name in results)], rows), ""]
    pairs = [(slower, faster) for slower, faster in RATIOS if {slower, faster} <= results.keys()]
    lines += [_ratio_told(results, slower, faster) for slower, faster in pairs]
    lines += [_gain_told(results, slower, faster) for slower, faster in pairs]
    return "\n".join(lines)


RATIOS = (
    ("trl", "regroup"),
    ("trl", "regroup_half"),
    ("trl", "regroup_half_predicted"),
    ("regroup", "regroup_half"),
    ("regroup", "regroup_half_predicted"),
)
"""(whose seconds, over whose)"""


def ratio(slower: Sequence[Reached], faster: Sequence[Reached]) -> Estimate | None:
    """Geometric mean of the ratio of seconds, with Student's 95% interval of its logarithm over the seeds in which both reached
    the target; None for fewer than two of them."""
    both = [(a["seconds"], b["seconds"]) for a, b in zip(slower, faster, strict=True)]
    found = over_seeds([math.log(a / b) for a, b in both if a is not None and b is not None])
    if found is None:
        return None
    return Estimate(estimate=math.exp(found.estimate), low=math.exp(found.low), high=math.exp(found.high), n=found.n)


def accuracy_after(result: Reached, seconds: float) -> float:
    """Accuracy after so many training seconds, between two evaluations in proportion; that of the last one where training ended
    before."""
    times, accuracies = zip(*result["curve"], strict=True)
    return float(np.interp(seconds, times, accuracies))


def gain(slower: Sequence[Reached], faster: Sequence[Reached]) -> Estimate | None:
    """Mean over seeds of how much more accurate the faster is after EQUAL_SECONDS, with Student's 95% interval."""
    pairs = zip(slower, faster, strict=True)
    return over_seeds([accuracy_after(b, EQUAL_SECONDS) - accuracy_after(a, EQUAL_SECONDS) for a, b in pairs])


def _gain_told(results: Mapping[str, Sequence[Reached]], slower: str, faster: str) -> str:
    found = gain(results[slower], results[faster])
    told = f"- {TITLES[faster]} against {TITLES[slower]} after {EQUAL_SECONDS:.0f} training seconds"
    if found is None:
        return f"{told}: unknown with fewer than two seeds"
    return f"{told}: accuracy {found.estimate:+.3f} [{found.low:+.3f}, {found.high:+.3f}], {found.n} seeds"


def _ratio_told(results: Mapping[str, Sequence[Reached]], slower: str, faster: str) -> str:
    told, found = f"{TITLES[slower]} over {TITLES[faster]}", ratio(results[slower], results[faster])
    if found is None:
        return f"- {told}: unknown with fewer than two seeds that both reached the target in"
    return f"- {told}: {found.estimate:.1f} times the seconds [{found.low:.1f}, {found.high:.1f}], geometric mean of {found.n} seeds"


def _told(result: Reached) -> str:
    if result["seconds"] is None:
        return f"not in {result['steps']} steps"
    return f"{result['seconds']:.0f} s, {result['steps']} steps ({result['seconds'] / result['steps']:.1f} s each)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contestants", nargs="*", default=list(CONTESTANTS), metavar=f"one of {', '.join(CONTESTANTS)}")
    names = parser.parse_args().contestants
    print(summary(found(trl_setting() if "trl" in names else Setting(16, bf16=False), names)))


if __name__ == "__main__":
    main()
