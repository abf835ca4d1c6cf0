"""When a challenger becomes champion: a pure rule on one split, the problems paired.

The interval is the percentile bootstrap of the mean difference over problems (Efron 1979). A rule that looks at the lower
bound promotes by luck at most (1 - confidence) / 2 of the time when the two policies are equally good.
"""

from __future__ import annotations

from typing import Any

from configs.records import Record
from configs.schema import PromotionConfig
from grpo_train.statistics import bootstrap_mean


class Decision(Record):
    """Whether the challenger becomes champion, and the paired gain that says so."""

    promoted: bool
    rule: str
    metric: str
    gain: float
    """mean of challenger minus champion"""
    low: float
    high: float
    n: int
    reason: str


def decide(
    champion: list[dict[str, Any]], challenger: list[dict[str, Any]], *, config: PromotionConfig, seed: int, draws: int
) -> Decision:
    """Compare two policies' rows of the same split, a row a problem.

    Raises:
        ValueError: the two do not hold the same problems, or a row lacks the metric.
    """
    gains = _paired_gains(champion, challenger, config.metric)
    gain = bootstrap_mean(gains, seed=seed, draws=draws, confidence=config.confidence)
    bound = {"better": 0.0, "not_worse": -config.tolerance, "always": float("-inf")}[config.rule]
    promoted = gain.low > bound
    interval = f"{gain.estimate:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
    needed = "promotes whatever the gain" if config.rule == "always" else f"needs a lower bound over {bound:g}"
    return Decision(
        promoted=promoted,
        rule=config.rule,
        metric=config.metric,
        gain=gain.estimate,
        low=gain.low,
        high=gain.high,
        n=gain.n,
        reason=f"{config.metric} {interval} on {gain.n} problems; rule {config.rule} {needed}",
    )


def _paired_gains(champion: list[dict[str, Any]], challenger: list[dict[str, Any]], metric: str) -> list[float]:
    before = {row["problem_key"]: row for row in champion}
    after = {row["problem_key"]: row for row in challenger}
    if set(before) != set(after):
        raise ValueError(
            f"champion was measured on {len(before)} problems and challenger on {len(after)}, "
            f"{len(set(before) & set(after))} in common; measure both on the same split"
        )
    known = set.intersection(*(set(row) for row in [*before.values(), *after.values()]))
    if metric not in known:
        raise ValueError(f"promotion.metric={metric!r} is no column of results.jsonl; columns are {sorted(known)}")
    return [float(after[key][metric]) - float(before[key][metric]) for key in before]
