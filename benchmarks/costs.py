"""Measures time and memory of a step by group size, response length and model size, for both systems on `fixed`.

Each case runs three steps in its own process; the last two count. `benchmarks.full` makes the tables and the plot.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.processes import Setting, contestant
from benchmarks.results import kept, table

SYSTEMS = ("regroup", "trl")
NUM_STEPS = 3


@dataclass(frozen=True)
class Axis:
    """An option of `benchmarks.contestant` that is varied, and its values."""

    name: str
    option: str
    values: tuple[str, ...]
    others: tuple[str, ...] = ()
    """options that stay fixed"""


AXES = (
    Axis("group size", "--group-size", ("4", "8", "16", "32"), ("--prompts", "2")),
    Axis("response length", "--response-length", ("32", "64", "128", "256"), ("--prompts", "2")),
    Axis("model size", "--model-size", ("50M", "135M", "360M"), ("--prompts", "2")),
)


def found(axis: Axis, trl: Setting) -> list[dict[str, Any]]:
    """One row per value, {value, system: {seconds, peak_mb}}; only missing cases are measured."""
    return [
        {"value": value}
        | {
            system: kept(f"costs/{axis.name.replace(' ', '_')}/{value}-{system}", partial(measured, axis, value, system, trl))
            for system in SYSTEMS
        }
        for value in axis.values
    ]  # fmt: skip


def measured(axis: Axis, value: str, system: str, trl: Setting) -> dict[str, Any]:
    """Median seconds and peak memory of one case."""
    arguments = [axis.option, value, *axis.others, *(trl.arguments if system == "trl" else [])]
    with contestant(system, "fixed", *arguments) as process:
        for _ in range(NUM_STEPS):
            process.step()
        result = process.measured(after=1)
    return {"seconds": result.median, "peak_mb": result.peak_mb}


def summary(axis: Axis, trl: Setting) -> str:
    """The results as a Markdown table."""
    rows = [
        [
            row["value"],
            f"{row['regroup']['seconds']:.1f}",
            f"{row['trl']['seconds']:.1f}",
            f"{row['trl']['seconds'] / row['regroup']['seconds']:.1f}",
            f"{row['regroup']['peak_mb']:,.0f}",
            f"{row['trl']['peak_mb']:,.0f}",
        ]
        for row in found(axis, trl)
    ]
    return table([axis.name, "Regroup (s a step)", "TRL (s a step)", "ratio", "Regroup (MB)", "TRL (MB)"], rows)
