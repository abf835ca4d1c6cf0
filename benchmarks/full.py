"""Runs all other benchmarks (`make bench-full`); results are kept on disk, so that an interrupted run can go on.

    python -m benchmarks.full

Tables are written to build/benchmarks/tables.md, plots beside it. Remove build/benchmarks to measure again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks import costs, group_sizes, memory, response_cache, time_to_accuracy
from benchmarks.deciding import promotion_errors
from benchmarks.processes import Setting
from benchmarks.results import FOLDER
from configs.disk.files import write_atomic

COLOURS = {"regroup": "#3d85c6", "regroup_half": "#6aa84f", "regroup_half_predicted": "#8e7cc3", "trl": "#d9782d"}
LABELS = time_to_accuracy.TITLES


def main() -> None:
    trl = time_to_accuracy.trl_setting()
    parts = []
    for title, text in _tables(trl):
        parts.append(f"## {title}\n\n{text}\n")
        print(parts[-1], flush=True)
        write_atomic(FOLDER / "tables.md", "\n".join(parts))
    _plot_costs(trl)
    _plot_memory()
    _plot_time_to_accuracy(trl)


def _tables(trl: Setting) -> Iterator[tuple[str, str]]:
    yield "Noise and cost by group size", group_sizes.summary()
    yield "Memory by responses an update", memory.summary()
    for axis in costs.AXES:
        yield f"A step by {axis.name}", costs.summary(axis, trl)
    yield f"Time to {time_to_accuracy.TARGET} dev accuracy", time_to_accuracy.summary(time_to_accuracy.found(trl))
    yield "The response cache", response_cache.summary()
    yield "How often promotion errs", promotion_errors.summary()
    yield "How often promotion errs, by discordance", promotion_errors.by_discordance()


def _plot_costs(trl: Setting) -> None:
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    for axes, axis in zip(figure.subplots(1, len(costs.AXES)), costs.AXES, strict=True):
        rows = costs.found(axis, trl)
        for system in costs.SYSTEMS:
            its = [(row["value"], row[system]["seconds"]) for row in rows if system in row]
            axes.plot(*zip(*its, strict=True), "o-", color=COLOURS[system], label=LABELS[system])
        _finish(axes, axis.name, "seconds a step")
    _save(figure, "costs")


def _plot_memory() -> None:
    rows = [row for row in memory.found() if row["variant"] == "plain"]
    figure = Figure(figsize=(3.6, 2.8), layout="constrained")
    axes = figure.subplots()
    num_responses = [row["responses"] for row in rows]
    axes.plot(
        num_responses, [row["peak_mb"] / 1024 for row in rows], "o-", color=COLOURS["regroup"], label=LABELS["regroup"]
    )
    axes.set_xticks(num_responses)
    _finish(axes, "responses an update", "peak memory (GiB)")
    _save(figure, "memory")


def _plot_time_to_accuracy(trl: Setting) -> None:
    figure = Figure(figsize=(5.4, 2.8), layout="constrained")
    axes = figure.subplots()
    for system, rows in time_to_accuracy.found(trl).items():
        for i, row in enumerate(rows):
            label: Any = LABELS[system] if i == 0 else None
            seconds, accuracy = zip(*row["curve"], strict=True)
            axes.plot(seconds, accuracy, ".-", color=COLOURS[system], label=label)
    axes.axhline(time_to_accuracy.TARGET, color="#888888", linewidth=0.8, linestyle="--")
    _finish(axes, "training seconds", "greedy dev accuracy")
    _save(figure, "time_to_accuracy")


def _finish(axes: Axes, x_label: str, y_label: str) -> None:
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


def _save(figure: Figure, name: str) -> None:
    figure.savefig(FOLDER / f"{name}.png", dpi=110)


if __name__ == "__main__":
    main()
