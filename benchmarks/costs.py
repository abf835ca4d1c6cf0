"""Seconds and memory of a step against group size, response length and model size, of both systems on `fixed`.

python -m benchmarks.costs

Each case is a process that makes three steps, of which the last two count.
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
    """What is varied, and over which values."""

    name: str
    option: str
    values: tuple[str, ...]
    others: tuple[str, ...] = ()
    """options that are held"""


AXES = (
    Axis("group size", "--group-size", ("4", "8", "16", "32"), ("--prompts", "2")),
    Axis("response length", "--response-length", ("32", "64", "128", "256"), ("--prompts", "2")),
    Axis("model size", "--model-size", ("50M", "135M", "360M"), ("--prompts", "2")),
)


def found(axis: Axis, trl: Setting) -> list[dict[str, Any]]:
    """A row a value: {system: {seconds, peak_mb}}, measured as far as it has not been."""
    return [
        {"value": value}
        | {
            system: kept(f"costs/{axis.name.replace(' ', '_')}/{value}-{system}", partial(measured, axis, value, system, trl))
            for system in SYSTEMS
        }
        for value in axis.values
    ]  # fmt: skip


def measured(axis: Axis, value: str, system: str, trl: Setting) -> dict[str, Any]:
    arguments = [axis.option, value, *axis.others, *(trl.arguments if system == "trl" else [])]
    with contestant(system, "fixed", *arguments) as each:
        for _ in range(NUM_STEPS):
            each.step()
        result = each.measured(after=1)
    return {"seconds": result.median, "peak_mb": result.peak_mb}


def summary(axis: Axis, trl: Setting) -> str:
    """The table."""
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
