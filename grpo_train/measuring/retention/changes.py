"""What became of old abilities: estimates of each suite, paired changes between two policies, and what promotion allows.

Changes are paired over items, since the items differ far more from each other than two policies do on one of them. Intervals
are percentile bootstraps over items (Efron 1979).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from configs.records import Estimate, Record
from configs.schema.measuring.retention import RetentionBound
from configs.seeds import seed_for
from reward_training.statistics import bootstrap_mean

Row = dict[str, Any]
MEASURES = ("value", "gold")


class RetentionReport(Record):
    """What was measured of one policy's old abilities."""

    policy_id: str
    suites: dict[str, dict[str, Estimate]]
    """{suite: {measure: its mean over the items}}"""
    kl_task: Estimate | None = None
    """nats per token on the task's own prompts, KL(given policy || this policy); None where it was not measured"""


class RetentionLoss(Record):
    """What a challenger lost of one suite against the given policy, and whether that is allowed."""

    suite: str
    measure: str
    loss: Estimate | None
    """paired, with the interval at the confidence of promotion; None where no item was measured of both"""
    max_loss: float

    @property
    def is_allowed(self) -> bool:
        return self.loss is not None and self.loss.high <= self.max_loss

    def __str__(self) -> str:
        what = name_of(self.suite, self.measure)
        if self.loss is None:
            return f"{what}: no item was measured of both, and promotion.retention bounds its loss"
        interval = f"{self.loss.estimate:+.4f} [{self.loss.low:+.4f}, {self.loss.high:+.4f}]"
        allowed = "within" if self.is_allowed else "over"
        return f"{what} lost {interval} on {self.loss.n} items, {allowed} max_loss={self.max_loss:g}"


def name_of(suite: str, measure: str) -> str:
    """A measure of a suite in words.

    >>> name_of("news", "value"), name_of("hellaswag", "gold")
    ('news', 'hellaswag (gold)')
    """
    return suite if measure == "value" else f"{suite} ({measure})"


def suite_estimates(rows: Sequence[Row], *, run_seed: int, draws: int) -> dict[str, dict[str, Estimate]]:
    """{suite: {measure: mean over its items with a 95% interval}}"""
    found: dict[str, dict[str, Estimate]] = {}
    for name in dict.fromkeys(row["suite"] for row in rows):
        for measure in MEASURES:
            if values := list(by_item(rows, name, measure).values()):
                seed = seed_for(run_seed, f"retention {name} {measure}")
                found.setdefault(name, {})[measure] = bootstrap_mean(values, seed=seed, draws=draws)
    return found


def paired_change(
    before: Sequence[Row],
    after: Sequence[Row],
    suite: str,
    measure: str,
    *,
    run_seed: int,
    draws: int,
    confidence: float = 0.95,
) -> Estimate | None:
    """Mean of `after` minus `before` over the items that both have; None without one."""
    old, new = (by_item(rows, suite, measure) for rows in (before, after))
    changes = [new[item] - old[item] for item in old if item in new]
    if not changes:
        return None
    seed = seed_for(run_seed, f"retention change {suite} {measure}")
    return bootstrap_mean(changes, seed=seed, draws=draws, confidence=confidence)


def losses(
    given: Sequence[Row],
    challenger: Sequence[Row],
    bounds: Mapping[str, RetentionBound],
    *,
    run_seed: int,
    draws: int,
    confidence: float,
) -> list[RetentionLoss]:
    """What the challenger lost of each suite that has a bound."""
    found = []
    for suite, bound in bounds.items():
        loss = paired_change(
            challenger, given, suite, bound.measure, run_seed=run_seed, draws=draws, confidence=confidence
        )
        found.append(RetentionLoss(suite=suite, measure=bound.measure, loss=loss, max_loss=bound.max_loss))
    return found


def by_item(rows: Sequence[Row], suite: str, measure: str) -> dict[str, float]:
    """{item: value} of a measure, for the items of a suite that have it."""
    return {row["item"]: row[measure] for row in rows if row["suite"] == suite and measure in row}
