"""Draws the report's charts as inline SVG in the page's text colour, to be legible in light and dark mode."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from matplotlib.typing import RcKeyType

from configs.records import Estimate
from grpo_train.measuring.overoptimisation import fit
from tasks.runs.run_records import RoundRecords, RunRecords

INK = "#123456"
"""placeholder for the page's text colour; replaced by `currentColor`"""
COLOURS = ("#3d85c6", "#d9782d", "#3f9d6b", "#a46bb8", "#c94f5d", "#8c8c3c", "#4ba3a8", "#b07d56")
PANEL_WIDTH, PANEL_HEIGHT = 3.55, 2.25  # inches: about as wide as a telephone, and a third of the page

STYLE: dict[RcKeyType, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "regroup",
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.linewidth": 0.6,
    "axes.unicode_minus": False,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.5,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.5,
}


@dataclass(frozen=True)
class Line:
    """One curve over rounds: a metric on one split."""

    label: str
    split: str
    metric: str


@dataclass(frozen=True)
class Panel:
    """One chart of a figure: its title and the function that draws it."""

    title: str
    draw: Callable[[Axes], None]


def over_rounds(records: RunRecords, title: str, lines: Sequence[Line]) -> Panel | None:
    """Estimates with 95% intervals over rounds, refused challengers with open marks; None if nothing was measured."""
    series = [(line, _measured(records, line)) for line in lines]
    if not any(points for _, points in series):
        return None

    def draw(axes: Axes) -> None:
        for i, (line, points) in enumerate(series):
            if points:
                offset = 0.06 * (i - (len(series) - 1) / 2)
                _draw_estimates(axes, points, line.label, COLOURS[i % len(COLOURS)], offset)
        axes.set_xticks([record.index for record in records.rounds])
        axes.set_xlim(min(r.index for r in records.rounds) - 0.35, max(r.index for r in records.rounds) + 0.35)
        axes.set_xlabel("round")
        if len(lines) > 1:
            legend_below(axes)

    return Panel(title, draw)


def over_steps(records: RunRecords, title: str, keys: dict[str, str]) -> Panel | None:
    """Step metrics {label: key}, the steps of all rounds one after the other; None if no round logged any of them."""
    if not any(record.steps(key) for record in records.rounds for key in keys.values()):
        return None

    def draw(axes: Axes) -> None:
        start = 0
        for record in records.rounds:
            for i, (label, key) in enumerate(keys.items()):
                _draw_steps(axes, record.steps(key), start, label if start == 0 else None, COLOURS[i % len(COLOURS)])
            if last := max((line.step for line in record.journal), default=0):
                _name_round(axes, record, start)
                start += last
        axes.set_xlim(0, start + 1)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlabel("step")
        if len(keys) > 1:
            legend_below(axes)

    return Panel(title, draw)


def advantage_shares(records: RunRecords) -> Panel | None:
    """Each objective's share of the advantages, one bar per round; None until a training that has advantages is finished."""
    rounds = [record for record in records.rounds if record.training and record.training.advantage_share]
    objectives = [reward.name for reward in records.config.rewards]
    if not rounds:
        return None

    def draw(axes: Axes) -> None:
        positions = range(len(rounds))
        left = [0.0] * len(rounds)
        for i, name in enumerate(objectives):
            shares = [record.advantage_share(name) or 0.0 for record in rounds]
            axes.barh(positions, shares, left=left, height=0.55, color=COLOURS[i % len(COLOURS)], label=name)
            left = [sum(pair) for pair in zip(left, shares, strict=True)]
        axes.set_yticks(positions, [f"round {record.index}" for record in rounds])
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.grid(axis="y", visible=False)
        legend_below(axes)

    return Panel("share of the advantage", draw)


def over_distance(records: RunRecords, title: str, key: str, colour: int) -> Panel | None:
    """A step metric against the distance from the initial policy, sqrt(KL of a response).

    With enough points, the fitted curve of Gao et al. is drawn too. None if no step measured both.
    """
    points = [
        (math.sqrt(kl * length), value)
        for record in records.rounds
        for kl, length, value in _together(record, "policy/kl_initial", "response/length_mean", key)
        if kl >= 0
    ]
    if not points:
        return None
    curve = fit(*zip(*points, strict=True))

    def draw(axes: Axes) -> None:
        axes.plot(*zip(*points, strict=True), "o", color=COLOURS[colour], markersize=3)
        if curve is not None:
            distances = np.linspace(0, max(d for d, _ in points), 60)
            axes.plot(distances, [curve.at(d) for d in distances], color=COLOURS[colour], linewidth=1)
        if curve is not None and curve.turn is not None and curve.turn < max(d for d, _ in points):
            axes.axvline(curve.turn, color=INK, linewidth=0.6, alpha=0.5, linestyle=(0, (2, 2)))
        axes.set_xlabel("sqrt(KL), nats a response")

    return Panel(title, draw)


def _together(record: RoundRecords, *keys: str) -> list[tuple[float, ...]]:
    """The values of `keys` at each step that measured all of them, in step order."""
    series = [dict(record.steps(key)) for key in keys]
    steps = sorted(set(series[0]).intersection(*series[1:]))
    return [tuple(values[step] for values in series) for step in steps]


def trade_off(records: RunRecords, across: str, up: str) -> Panel | None:
    """Two objectives' means on `test`, a mark per round, filled if Pareto-optimal; None if no round measured both."""
    points = {
        record.index: (x.estimate, y.estimate)
        for record in records.rounds
        if (x := record.estimate("test", f"sampled/{across}")) and (y := record.estimate("test", f"sampled/{up}"))
    }
    if not points:
        return None

    def draw(axes: Axes) -> None:
        axes.plot(*zip(*points.values(), strict=True), color=COLOURS[0], linewidth=0.7, alpha=0.6)
        for round_index, (x, y) in points.items():
            style = "none" if is_beaten((x, y), list(points.values())) else "full"
            axes.plot(x, y, "o", color=COLOURS[0], fillstyle=style, markersize=5)
            axes.annotate(str(round_index), (x, y), xytext=(4, 4), textcoords="offset points", fontsize=8)
        axes.set_xlabel(across)
        axes.set_ylabel(up)

    return Panel(f"{up} against {across}, test", draw)


def is_beaten(point: tuple[float, float], points: Sequence[tuple[float, float]]) -> bool:
    """Whether another point dominates this one: at least as good in both objectives and better in one.

    >>> is_beaten((1, 1), [(1, 1), (2, 1)]), is_beaten((1, 2), [(2, 1), (1, 2)])
    (True, False)
    """
    return any(other[0] >= point[0] and other[1] >= point[1] and other != point for other in points)


def figures(panels: Sequence[Panel | None], *, label: str) -> Markup:
    """A figure for each panel that is not None, side by side as far as the page is wide; empty if there are none.

    `label` says of all of them what they show.
    """
    shown = [panel for panel in panels if panel is not None]
    if not shown:
        return Markup("")
    drawn = Markup("\n").join(
        Markup("<figure>{}</figure>").format(
            _inline(_svg(panel), f"{panel.title}: {label}", f"{crc32(label.encode()):08x}-{i}-")
        )
        for i, panel in enumerate(shown)
    )
    return Markup('<div class="figures">{}</div>').format(drawn)


def _svg(panel: Panel) -> str:
    """The panel as an SVG file."""
    with matplotlib.rc_context(STYLE):
        layout = ConstrainedLayoutEngine(h_pad=0.05, w_pad=0.05)
        figure = Figure(figsize=(PANEL_WIDTH, PANEL_HEIGHT), layout=layout)
        axes = figure.add_subplot()
        axes.grid(visible=True)
        axes.set_axisbelow(True)
        axes.margins(y=0.14)
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        panel.draw(axes)
        if axes.dataLim.y0 >= 0:
            axes.set_ylim(0, 1.15 * axes.dataLim.y1 or 1)
        axes.set_title(panel.title)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _inline(text: str, label: str, prefix: str) -> Markup:
    """An SVG file as an inline element: no prologue, no fixed size, the page's text colour, ids that clash with no other's."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{prefix}", text)
    text = re.sub(r'(<svg [^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg [^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = text.replace(INK, "currentColor").replace(
        "<svg ", f'<svg role="img" aria-label="{Markup.escape(label)}" ', 1
    )
    return Markup(text)


def _measured(records: RunRecords, line: Line) -> list[tuple[RoundRecords, Estimate]]:
    estimates = [(record, record.estimate(line.split, line.metric)) for record in records.rounds]
    return [(record, estimate) for record, estimate in estimates if estimate is not None]


def _draw_estimates(
    axes: Axes, points: list[tuple[RoundRecords, Estimate]], label: str, colour: str, offset: float
) -> None:
    xs = [record.index + offset for record, _ in points]
    values = [estimate.estimate for _, estimate in points]
    axes.plot(xs, values, color=colour, label=label)
    axes.vlines(xs, [e.low for _, e in points], [e.high for _, e in points], color=colour, linewidth=1)
    for x, (record, estimate) in zip(xs, points, strict=True):
        refused = record.decision is not None and not record.decision.promoted
        axes.plot(
            x,
            estimate.estimate,
            "o",
            color=colour,
            markersize=4.5,
            fillstyle="none" if refused else "full",
            clip_on=False,
        )


def _draw_steps(axes: Axes, points: list[tuple[int, float]], start: int, label: str | None, colour: str) -> None:
    if not points:
        return
    marker = "o" if len(points) < 4 else None
    axes.plot(
        [start + step for step, _ in points], [v for _, v in points], color=colour, label=label, marker=marker, ms=3
    )


def legend_below(axes: Axes) -> None:
    """Put the legend below the plot, where it covers no line."""
    ticks_and_label = 0.3 if axes.get_xlabel() else 0.2
    longest = max(len(text) for text in axes.get_legend_handles_labels()[1])
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -ticks_and_label),
        ncols=max(1, min(3, 36 // longest)),
        handlelength=1,
        columnspacing=1.2,
    )


def _name_round(axes: Axes, record: RoundRecords, start: int) -> None:
    if start:
        axes.axvline(start + 0.5, color=INK, linewidth=0.6, alpha=0.5, linestyle=(0, (2, 2)))
    axes.text(
        start + 1, 1.0, f"round {record.index}", transform=axes.get_xaxis_transform(), fontsize=7, alpha=0.7, va="top"
    )
