"""Watches metrics during training: one that stays out of bounds for long enough raises a warning or ends the stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from configs.schema.config import WatchRule
from grpo_train.observers.observer import StepRecord


@dataclass(frozen=True)
class Alarm:
    """A rule whose patience ran out, and the measurement at which it did."""

    rule: WatchRule
    step: int
    value: float
    since: int
    """step of the first of the measurements in a row that were out of bounds"""

    def __str__(self) -> str:
        looked_at = f"{self.rule.metric} less its mean before" if self.rule.jump_over else self.rule.metric
        bound = f"above {self.rule.above:g}" if self.rule.above is not None else f"below {self.rule.below:g}"
        return (
            f"{looked_at} is {self.value:.4g} at step {self.step}: {bound} "
            f"for {self.rule.patience} measurements in a row"
        )


@dataclass
class Watch:
    """Counts, for each rule, consecutive measurements out of bounds."""

    rules: Sequence[WatchRule]
    counts: list[int] = field(default_factory=list)
    since: list[int] = field(default_factory=list)
    """step of the first of them"""
    before: list[list[float]] = field(default_factory=list)
    """for each rule with `jump_over`, its last measurements, oldest first"""
    alarms: list[Alarm] = field(default_factory=list)
    """alarms of the last step"""

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * len(self.rules)
        self.since = self.since or [0] * len(self.rules)
        self.before = self.before or [[] for _ in self.rules]

    def state(self) -> dict[str, Any]:
        return {"counts": self.counts, "since": self.since, "before": self.before}

    def restore(self, state: dict[str, Any]) -> None:
        self.counts, self.since = list(state["counts"]), list(state["since"])
        self.before = [list(values) for values in state["before"]]

    def look(self, step: StepRecord) -> dict[str, float]:
        """Check the step's metrics and set `alarms`; adds no metrics."""
        self.alarms = self.examine(step.step, step.metrics)
        return {}

    def examine(self, step: int, metrics: Mapping[str, float]) -> list[Alarm]:
        """Alarms of rules whose patience runs out now; a rule alarms once until its metric is back in bounds."""
        alarms = []
        for i, rule in enumerate(self.rules):
            if rule.metric not in metrics:
                continue
            value = self._looked_at(i, metrics[rule.metric])
            if value is None:
                continue
            self.counts[i] = self.counts[i] + 1 if _is_out(rule, value) else 0
            if self.counts[i] == 1:
                self.since[i] = step
            if self.counts[i] == rule.patience:
                alarms.append(Alarm(rule, step, value, self.since[i]))
        return alarms

    def _looked_at(self, i: int, value: float) -> float | None:
        """The metric, or with `jump_over` its difference from the mean of that many earlier values.

        None until there are that many.
        """
        size = self.rules[i].jump_over
        if size is None:
            return value
        earlier = self.before[i]
        self.before[i] = [*earlier, value][-size:]
        return value - fmean(earlier) if len(earlier) == size else None


def _is_out(rule: WatchRule, value: float) -> bool:
    return (rule.above is not None and value > rule.above) or (rule.below is not None and value < rule.below)
