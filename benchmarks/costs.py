"""Measures time and memory of a step by group size, response length and model size, for both systems on `fixed`.

    python -m benchmarks.costs            # Regroup alone: how its time grows

Each case runs three steps in its own process; the last two count. `benchmarks.full` makes the tables and the plot. TRL holds
the logits of a micro-batch, so the largest cases are of Regroup alone.
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
    alone: tuple[str, ...] = ()
    """further values, of Regroup alone"""


AXES = (
    Axis("group size", "--group-size", ("4", "8", "16", "32"), ("--prompts", "2"), alone=("64",)),
    Axis("response length", "--response-length", ("32", "64", "128", "256"), ("--prompts", "2"), alone=("512", "1024")),
    Axis("model size", "--model-size", ("50M", "135M", "360M"), ("--prompts", "2")),
)


def found(axis: Axis, trl: Setting | None) -> list[dict[str, Any]]:
    """One row per value, {value, system: {seconds, peak_mb}}; only missing cases are measured. Without TRL's setting of Regroup
    alone."""
    rows = []
    for value in (*axis.values, *axis.alone):
        systems = SYSTEMS if trl is not None and value in axis.values else SYSTEMS[:1]
        rows.append({"value": value} | {system: _kept(axis, value, system, trl) for system in systems})
    return rows


def _kept(axis: Axis, value: str, system: str, trl: Setting | None) -> dict[str, Any]:
    return kept(f"costs/{axis.name.replace(' ', '_')}/{value}-{system}", partial(measured, axis, value, system, trl))


def measured(axis: Axis, value: str, system: str, trl: Setting | None) -> dict[str, Any]:
    """Median seconds and peak memory of one case."""
    arguments = [axis.option, value, *axis.others, *(trl.arguments if trl is not None and system == "trl" else [])]
    with contestant(system, "fixed", *arguments) as process:
        for _ in range(NUM_STEPS):
            process.step()
        result = process.measured(after=1)
    return {"seconds": result.median, "peak_mb": result.peak_mb}


def summary(axis: Axis, trl: Setting | None) -> str:
    """The results as a Markdown table, and how our time grows."""
    rows = found(axis, trl)
    header = [axis.name, "Regroup (s a step)", "TRL (s a step)", "ratio", "Regroup (MB)", "TRL (MB)"]
    return "\n".join([table(header, [_told(row) for row in rows]), "", growth(axis, rows)])


def _told(row: dict[str, Any]) -> list[str]:
    ours, theirs = row["regroup"], row.get("trl")
    if theirs is None:
        return [row["value"], f"{ours['seconds']:.1f}", "-", "-", f"{ours['peak_mb']:,.0f}", "-"]
    ratio = theirs["seconds"] / ours["seconds"]
    return [
        row["value"], f"{ours['seconds']:.1f}", f"{theirs['seconds']:.1f}", f"{ratio:.1f}",
        f"{ours['peak_mb']:,.0f}", f"{theirs['peak_mb']:,.0f}",
    ]  # fmt: skip


def growth(axis: Axis, rows: list[dict[str, Any]]) -> str:
    """How many times the seconds and the memory the largest value takes of the smallest."""
    (least, most), ours = (rows[0], rows[-1]), "regroup"
    seconds, peak = (most[ours][key] / least[ours][key] for key in ("seconds", "peak_mb"))
    return (
        f"{axis.name} {least['value']} to {most['value']}: {seconds:.1f} times the seconds, {peak:.2f} times the memory"
    )


def main() -> None:
    for axis in AXES:
        if axis.alone:
            print(summary(axis, None), flush=True)


if __name__ == "__main__":
    main()
