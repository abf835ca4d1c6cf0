"""Old abilities of the rounds' policies, as the report and the terminal show them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from configs.records import Estimate
from grpo_train.measuring.retention.changes import RetentionLoss, name_of
from tasks.runs.run_records import RoundRecords, RunRecords


@dataclass(frozen=True)
class Kept:
    """One measure of one suite, of the policy of one round."""

    suite: str
    measure: str
    unit: str
    value: Estimate
    change: Estimate | None
    """paired, against the given policy; None for that itself"""
    change_champion: Estimate | None
    """paired, against the champion that it was compared with; None for the given policy"""
    loss: RetentionLoss | None
    """as promotion bounds it; None without a bound"""

    @property
    def name(self) -> str:
        return name_of(self.suite, self.measure)


def kept_of(records: RunRecords, record: RoundRecords) -> list[Kept]:
    """What was measured of a round's policy, a line for each suite and measure; empty without suites."""
    if record.retention is None:
        return []
    losses = record.decision.retention if record.decision is not None else []
    bounded = {(loss.suite, loss.measure): loss for loss in losses}
    return [
        Kept(
            suite,
            measure,
            _unit(records, suite, measure),
            value,
            records.retention_change(records.given, record, suite, measure),
            records.retention_change(records.champion_before(record.index), record, suite, measure),
            bounded.get((suite, measure)),
        )
        for suite, measures in record.retention.suites.items()
        for measure, value in measures.items()
    ]


def _unit(records: RunRecords, suite: str, measure: str) -> str:
    settings = records.config.evaluation.retention.get(suite)
    return "nats a token" if measure == "gold" or (settings and settings.kind == "text") else "share right"


def summarised(records: RunRecords, record: RoundRecords) -> dict[str, Any]:
    """What summary.json holds of a round's old abilities; empty without suites."""
    if record.retention is None:
        return {}
    suites = {
        line.name: {"value": line.value, "change": line.change, "change_champion": line.change_champion}
        for line in kept_of(records, record)
    }
    plain = {
        name: {key: None if value is None else value.model_dump(mode="json") for key, value in found.items()}
        for name, found in suites.items()
    }
    kl_task = record.retention.kl_task
    return {"retention": plain, "kl_task": None if kl_task is None else kl_task.model_dump(mode="json")}


def retention_table(summary: dict[str, Any]) -> Table | None:
    """A summary's old abilities by round, with the paired change against the given policy; None where there are no suites."""
    measured = [row for row in summary["rounds"] if row.get("retention")]
    if not measured:
        return None
    table = Table(title="Old abilities", title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=0)
    for column, justify in (
        ("round", "right"),
        ("suite", "left"),
        ("value", "right"),
        ("change", "left"),
        ("KL", "right"),
    ):
        table.add_column(column, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in measured:
        kl_task = "-" if row["kl_task"] is None else f"{row['kl_task']['estimate']:.4f}"
        for suite, found in row["retention"].items():
            value = f"{found['value']['estimate']:.3f}"
            table.add_row(str(row["round"]), suite, value, _change(found["change"]), kl_task)
    return table


def _change(change: dict[str, Any] | None) -> str:
    """`-0.0120 [-0.0190, -0.0050]`"""
    return "-" if change is None else f"{change['estimate']:+.4f} [{change['low']:+.4f}, {change['high']:+.4f}]"
