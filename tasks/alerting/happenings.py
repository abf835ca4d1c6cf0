"""Says what is told of in a run, and in which words. Each function is called again when a run is resumed."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from configs.records import Estimate, Policy, RewardModelReport
from configs.schema.config import Config
from grpo_train.measuring.promotion import Decision
from tasks.alerting.alerts import Alerts
from tasks.runs.run_records import RoundRecords, alarms_of, paired_gain
from tasks.runs.times import CallTime

SPLIT = "test"
"""on which a fall of accuracy is looked for: promotion looks at dev alone"""


def tell_decision(
    alerts: Alerts, round_index: int, decision: Decision, *, champion: Policy, challenger: Policy
) -> None:
    """That the challenger was promoted or refused."""
    alerts.tell(
        "challenger.promoted" if decision.promoted else "challenger.refused",
        f"the challenger was {'promoted' if decision.promoted else 'refused'}; {decision.reason}",
        which=(champion.id, challenger.id, decision.reason),
        round_index=round_index,
        policy_id=challenger.id,
        champion_id=champion.id,
        **decision.model_dump(mode="json", include={"metric", "gain", "low", "high", "n", "rule", "reason"}),
    )


def tell_fall(alerts: Alerts, config: Config, before: RoundRecords, after: RoundRecords) -> None:
    """That the policy of the round `after` is worse on test than that of the round `before`, over its 95% interval."""
    metric = config.promotion.metric
    gain = paired_gain(before, after, SPLIT, metric, config)
    if gain is None or gain.high >= 0:
        return
    old, new = before.estimate(SPLIT, metric), after.estimate(SPLIT, metric)
    values = f" from {old.estimate:.3f} to {new.estimate:.3f}" if old is not None and new is not None else ""
    whose = "the given policy" if before.index == 0 else f"the policy of round {before.index}"
    alerts.tell(
        "accuracy.fell",
        f"{metric} on {SPLIT} fell{values}: {_interval(gain)} against {whose} on {gain.n} problems",
        which=(before.policy_id, after.policy_id),
        round_index=after.index,
        metric=metric,
        split=SPLIT,
        against_round=before.index,
        policy_id=after.policy_id,
        **gain.model_dump(mode="json"),
    )


def _interval(gain: Estimate) -> str:
    return f"{gain.estimate:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"


def tell_refused_model(alerts: Alerts, round_index: int, name: str, report: RewardModelReport, instead: str) -> None:
    """That a reward model was refused, and what the round goes on with instead."""
    reasons = "; ".join(report.reasons)
    alerts.tell(
        "reward_model.refused",
        f"reward model {name} was refused: {reasons}; {instead}",
        which=(name, report.id, reasons),
        round_index=round_index,
        reward_model=name,
        id=report.id,
        reasons=report.reasons,
        accuracy=report.accuracy.model_dump(mode="json") if report.accuracy else None,
    )


def tell_watch_rules(alerts: Alerts, config: Config, record: RoundRecords) -> None:
    """Which watch rules the training of the round's policy set off, each at its first time."""
    seen = set()
    for alarm in alarms_of(record, config):
        rule = alarm.rule.model_dump_json()
        if rule not in seen:
            seen.add(rule)
            alerts.tell(
                "watch.triggered",
                f"{alarm}; action {alarm.rule.action}",
                which=(rule, alarm.step, alarm.value),
                round_index=record.index,
                metric=alarm.rule.metric,
                action=alarm.rule.action,
                step=alarm.step,
                value=alarm.value,
            )


def tell_finished(alerts: Alerts, summary: Mapping[str, Any]) -> None:
    """That all rounds of the run are done."""
    champion, rounds = summary["champion"], summary["rounds"]
    accuracies = [row["evaluation"].get("test/greedy_accuracy") for row in (rounds[0], rounds[champion["round"]])]
    known = [f"{value['estimate']:.3f}" for value in accuracies if value is not None]
    accuracy = f", greedy accuracy on test from {known[0]} to {known[1]}" if len(known) == 2 else ""
    alerts.tell(
        "run.finished",
        f"finished; the champion is the policy of round {champion['round']}{accuracy}",
        which=(len(rounds), champion["policy_id"]),
        champion={"round": champion["round"], "policy_id": champion["policy_id"]},
        rounds=len(rounds) - 1,
        seconds=summary["seconds"]["whole"],
    )


def tell_failed(alerts: Alerts, error: BaseException) -> None:
    """That the run ended with an error."""
    alerts.tell(
        "run.failed",
        f"failed: {_first_line(error)}",
        which=uuid.uuid4(),
        error=type(error).__name__,
        message=_first_line(error),
    )


def tell_interrupted(alerts: Alerts, killed: Sequence[CallTime]) -> None:
    """That earlier processes were killed, or their machine went down, while they worked on the run: they told nobody."""
    for call in killed:
        alerts.tell(
            "run.interrupted",
            f"the process that worked on it was killed after at least {call.whole / 60:.1f} min; the run goes on now",
            which=call.call,
            seconds=call.whole,
        )


def tell_skipped(alerts: Alerts, why: BaseException) -> None:
    """That a scheduled run did not start, since another one was still at work."""
    alerts.tell("run.skipped", f"skipped: {_first_line(why)}", which=uuid.uuid4(), message=_first_line(why))


def _first_line(error: BaseException) -> str:
    """The error's class and the first line of its message, without passwords in addresses."""
    line = str(error).strip().partition("\n")[0][:300]
    return re.sub(r"//[^/@\s]+@", "//", f"{type(error).__name__}: {line}" if line else type(error).__name__)
