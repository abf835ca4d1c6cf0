"""Rules that look at training while it runs: a metric out of bounds for long enough is said, or ends the stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from configs.schema import WatchRule


@dataclass(frozen=True)
class Alarm:
    """A rule whose patience ran out."""

    rule: WatchRule
    step: int
    value: float

    def __str__(self) -> str:
        bound = f"above {self.rule.above:g}" if self.rule.above is not None else f"below {self.rule.below:g}"
        return (
            f"{self.rule.metric} is {self.value:.4g} at step {self.step}: {bound} "
            f"for {self.rule.patience} measurements in a row"
        )


@dataclass
class Watch:
    """Counts, for each rule, the measurements in a row that were out of bounds."""

    rules: Sequence[WatchRule]
    counts: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * len(self.rules)

    def state(self) -> dict[str, Any]:
        return {"counts": self.counts}

    def restore(self, state: dict[str, Any]) -> None:
        self.counts = list(state["counts"])

    def look(self, step: int, metrics: dict[str, float]) -> list[Alarm]:
        """Rules whose patience runs out at this step; each sounds once until its metric is back in bounds."""
        alarms = []
        for number, rule in enumerate(self.rules):
            if rule.metric not in metrics:
                continue
            value = metrics[rule.metric]
            self.counts[number] = self.counts[number] + 1 if _is_out(rule, value) else 0
            if self.counts[number] == rule.patience:
                alarms.append(Alarm(rule, step, value))
        return alarms


def _is_out(rule: WatchRule, value: float) -> bool:
    return (rule.above is not None and value > rule.above) or (rule.below is not None and value < rule.below)
