"""Draws what each method came to by the tokens that it generated, with a band over its seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from tasks.comparing.intervals import Floats
from tasks.comparing.members import Curve, MemberRun, metric_of
from tasks.showing.figures import COLOURS, Panel, legend_below

NUM_POINTS = 60
"""at which curves of several seeds are averaged"""


@dataclass(frozen=True)
class Band:
    """Several seeds' curves at common numbers of tokens: their mean, lowest and highest value there."""

    tokens: Floats
    mean: Floats
    low: Floats
    high: Floats


def band(curves: Sequence[Curve]) -> Band | None:
    """The curves between the tokens at which the last one begins and the first one ends, by straight lines between their points.

    None where they have no two tokens in common.
    """
    if not curves or not all(curves):
        return None
    start, end = max(curve[0][0] for curve in curves), min(curve[-1][0] for curve in curves)
    if end <= start:
        return None
    tokens = np.linspace(start, end, NUM_POINTS)
    values = np.array([np.interp(tokens, [x for x, _ in curve], [y for _, y in curve]) for curve in curves])
    return Band(tokens, values.mean(axis=0), values.min(axis=0), values.max(axis=0))


def panels(best: Mapping[str, Sequence[MemberRun]]) -> list[Panel | None]:
    """Training reward and accuracy by step, and dev by round, of each method's members."""
    config = next(iter(best.values()))[0].member.config
    metric = metric_of(config)
    trained = [reward.name for reward in config.rewards]
    steps = {"reward in training": "reward/mean"}
    steps |= {f"{name} in training": f"objective/{name}/mean" for name in config.checkers if name in trained}
    steps |= {"KL from the initial policy (nats)": "policy/kl_initial", "entropy (nats a token)": "policy/entropy"}
    by_step = {title: _by_step(best, key) for title, key in steps.items()}
    return [
        _panel(
            f"{metric} on dev", {method: [run.by_round("dev", metric) for run in runs] for method, runs in best.items()}
        ),
        *(_panel(title, curves) for title, curves in by_step.items()),
    ]


def _by_step(best: Mapping[str, Sequence[MemberRun]], key: str) -> dict[str, list[Curve]]:
    return {method: [run.by_step(key) for run in runs] for method, runs in best.items()}


def _panel(title: str, curves: Mapping[str, Sequence[Curve]]) -> Panel | None:
    """A line with a band for each method; None if nothing was measured."""
    bands = {method: found for method, of_method in curves.items() if (found := band(of_method)) is not None}
    if not bands:
        return None

    def draw(axes: Axes) -> None:
        for i, method in enumerate(curves):
            if (shown := bands.get(method)) is not None:
                colour = COLOURS[i % len(COLOURS)]
                axes.plot(shown.tokens, shown.mean, color=colour, label=method)
                axes.fill_between(shown.tokens, shown.low, shown.high, color=colour, alpha=0.18, linewidth=0)
        axes.set_xlabel("generated tokens")
        legend_below(axes)

    return Panel(title, draw)
