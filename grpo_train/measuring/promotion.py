"""Decides whether a challenger becomes champion: by paired results on one split and, if people compared, their votes.

The interval is the percentile bootstrap of the mean paired difference over problems (Efron 1979), and the rule looks at
its lower bound: `better` promotes a challenger that is only as good as the champion at most (1 - confidence) / 2 of the
time, by luck.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from configs.errors import ConfigError
from configs.records import Estimate, Record
from configs.schema.evaluation import PeopleConfig, PromotionConfig
from grpo_train.measuring.retention.changes import RetentionLoss
from reward_training.statistics import bootstrap_mean, wilson_mean


class Decision(Record):
    """Whether the challenger becomes champion, and the paired gain behind the decision."""

    promoted: bool
    rule: str
    metric: str
    gain: float | None
    """mean paired difference, challenger minus champion; None where no problem has a value in both"""
    low: float | None
    high: float | None
    n: int
    """number of problems that have a value in both"""
    reason: str
    people: Estimate | None = None
    """the challenger's win rate in people's comparisons; None where nobody was asked or answered"""
    retention: list[RetentionLoss] = Field(default_factory=list)
    """what it lost of the suites that `promotion.retention` bounds"""


def decide(
    champion: list[dict[str, Any]],
    challenger: list[dict[str, Any]],
    *,
    config: PromotionConfig,
    seed: int,
    draws: int,
    people: Estimate | None = None,
    retention: Sequence[RetentionLoss] = (),
) -> Decision:
    """Compare two policies' rows on the same split, one row per problem; `people` is the challenger's win rate, and `retention`
    what it lost of old abilities.

    Problems on which one of the two has no value of the metric do not count. Without any that count, whatever the rule,
    the challenger is refused.

    Raises:
        ValueError: the two do not hold the same problems, or the metric is none of theirs.
    """
    gains = _paired_gains(champion, challenger, config.metric)
    if not gains:
        return _without_values(champion, challenger, config, people, retention)
    gain = bootstrap_mean(gains, seed=seed, draws=draws, confidence=config.confidence)
    bound = {"better": 0.0, "not_worse": -config.tolerance, "always": float("-inf")}[config.rule]
    allowed, clause = (True, "") if config.people is None else _votes(people, config.people)
    interval = f"{gain.estimate:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
    forgot, told = _forgotten(retention)
    needed = "promotes whatever the gain" if config.rule == "always" else f"needs a lower bound over {bound:g}"
    return Decision(
        promoted=gain.low > bound and allowed and not forgot,
        rule=config.rule,
        metric=config.metric,
        gain=gain.estimate,
        low=gain.low,
        high=gain.high,
        n=gain.n,
        reason=f"{config.metric} {interval} on {gain.n} problems; rule {config.rule} {needed}{clause}{told}",
        people=people,
        retention=list(retention),
    )


def _without_values(
    champion: list[dict[str, Any]],
    challenger: list[dict[str, Any]],
    config: PromotionConfig,
    people: Estimate | None,
    retention: Sequence[RetentionLoss],
) -> Decision:
    """The refusal where no problem has the metric in both."""
    before, after = (sum(config.metric in row for row in rows) for rows in (champion, challenger))
    reason = (
        f"no problem has a value of {config.metric} in both (champion {before} of {len(champion)}, challenger {after} of "
        f"{len(challenger)}): nothing was measured that could promote it, whatever the rule"
    )
    return Decision(
        promoted=False,
        rule=config.rule,
        metric=config.metric,
        gain=None,
        low=None,
        high=None,
        n=0,
        reason=reason,
        people=people,
        retention=list(retention),
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


def _forgotten(retention: Sequence[RetentionLoss]) -> tuple[bool, str]:
    """(whether a loss is not allowed, the clause about old abilities in the reason: the losses that refuse, or else all)."""
    refusing = [loss for loss in retention if not loss.is_allowed]
    told = "; ".join(str(loss) for loss in refusing or retention)
    verdict = "refused for what it forgot" if refusing else "old abilities"
    return bool(refusing), f"; {verdict}: {told}" if told else ""


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
    if not any(metric in row or "unscored" in row for row in [*champion, *challenger]):
        known = set.intersection(*(set().union(*rows) for rows in (champion, challenger)))
        raise ConfigError(f"promotion.metric={metric!r} is no column of results.jsonl; columns are {sorted(known)}")
    return [float(after[k][metric]) - float(before[k][metric]) for k in before if metric in before[k].keys() & after[k]]
