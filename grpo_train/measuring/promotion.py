"""Decides whether a challenger becomes champion: by paired results on one split and, if people compared, their votes.

The interval is the percentile bootstrap of the mean paired difference over problems (Efron 1979), and the rule looks at
its lower bound: `better` promotes a challenger that is only as good as the champion at most (1 - confidence) / 2 of the
time, by luck.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from configs.errors import ConfigError
from configs.records import Estimate, Record
from configs.schema.evaluation import PeopleConfig, PromotionConfig
from reward_training.statistics import bootstrap_mean, wilson_mean


class Decision(Record):
    """Whether the challenger becomes champion, and the paired gain behind the decision."""

    promoted: bool
    rule: str
    metric: str
    gain: float
    """mean paired difference, challenger minus champion"""
    low: float
    high: float
    n: int
    reason: str
    people: Estimate | None = None
    """the challenger's win rate in people's comparisons; None where nobody was asked or answered"""


def decide(
    champion: list[dict[str, Any]],
    challenger: list[dict[str, Any]],
    *,
    config: PromotionConfig,
    seed: int,
    draws: int,
    people: Estimate | None = None,
) -> Decision:
    """Compare two policies' rows on the same split, one row per problem; `people` is the challenger's win rate.

    Problems on which one of the two has no value of the metric do not count.

    Raises:
        ValueError: the two do not hold the same problems, or none of them has the metric.
    """
    gains = _paired_gains(champion, challenger, config.metric)
    gain = bootstrap_mean(gains, seed=seed, draws=draws, confidence=config.confidence)
    bound = {"better": 0.0, "not_worse": -config.tolerance, "always": float("-inf")}[config.rule]
    allowed, clause = (True, "") if config.people is None else _votes(people, config.people)
    interval = f"{gain.estimate:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
    needed = "promotes whatever the gain" if config.rule == "always" else f"needs a lower bound over {bound:g}"
    return Decision(
        promoted=gain.low > bound and allowed,
        rule=config.rule,
        metric=config.metric,
        gain=gain.estimate,
        low=gain.low,
        high=gain.high,
        n=gain.n,
        reason=f"{config.metric} {interval} on {gain.n} problems; rule {config.rule} {needed}{clause}",
        people=people,
    )


def win_rate(leanings: Sequence[float]) -> Estimate | None:
    """The challenger's win rate with its 95% Wilson interval; None where nobody answered.

    A leaning is in [-1, 1]: 1 where everyone prefers the challenger, and 0 counts as half a win.
    """
    return wilson_mean([(1 + leaning) / 2 for leaning in leanings]) if leanings else None


def _votes(people: Estimate | None, config: PeopleConfig) -> tuple[bool, str]:
    """(whether people's votes allow the promotion under the rule, the clause that says so in the reason)."""
    if people is None:
        return config.rule != "better", f"; no person answered, which people.rule {config.rule} {_silence(config)}"
    allowed = {"report": True, "not_worse": people.high >= 0.5, "better": people.low > 0.5}[config.rule]
    rate = f"{people.estimate:.2f} [{people.low:.2f}, {people.high:.2f}]"
    needed = {"report": "only shows", "not_worse": "needs to reach 0.5", "better": "needs wholly over 0.5"}[config.rule]
    return allowed, f"; people prefer it in {rate} of {people.n} comparisons, which people.rule {config.rule} {needed}"


def _silence(config: PeopleConfig) -> str:
    return "takes for a no" if config.rule == "better" else "lets pass"


def _paired_gains(champion: list[dict[str, Any]], challenger: list[dict[str, Any]], metric: str) -> list[float]:
    before = {row["problem_key"]: row for row in champion}
    after = {row["problem_key"]: row for row in challenger}
    if set(before) != set(after):
        raise ValueError(
            f"champion was measured on {len(before)} problems and challenger on {len(after)}, "
            f"{len(set(before) & set(after))} in common; measure both on the same split"
        )
    gains = [
        float(after[k][metric]) - float(before[k][metric]) for k in before if metric in before[k].keys() & after[k]
    ]
    if not gains:
        known = {name for row in before.values() for name in row} & {name for row in after.values() for name in row}
        raise ConfigError(f"promotion.metric={metric!r} is no column of results.jsonl; columns are {sorted(known)}")
    return gains
