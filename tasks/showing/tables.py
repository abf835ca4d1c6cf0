"""Builds tables for the terminal, readable at 80 columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from configs.records import Estimate, EvalReport, RewardModelReport
from tasks.showing.by_source import accuracies_by_source


def rounds_table(summary: dict[str, Any]) -> Table:
    """The table of a summary's rounds, one row per round."""
    title = f"Run {summary['run']}: {summary['status']}"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=0)
    for name, justify in _TABLE_COLUMNS:
        table.add_column(name, justify=justify, overflow="fold")
    for row in summary["rounds"]:
        table.add_row(*_row(row, summary["champion"]["policy_id"]))
    return table


_TABLE_COLUMNS: list[tuple[str, Any]] = [
    ("round", "right"),
    ("policy", "left"),
    ("standing", "left"),
    ("test\naccuracy", "left"),
    ("dev", "right"),
    ("reward\nmodels", "left"),
    ("share of\nadvantage", "left"),
    ("min", "right"),
]


def _row(row: dict[str, Any], champion_id: str) -> list[str]:
    return [
        str(row["round"]),
        row["policy_id"][:8],
        _standing(row, champion_id),
        _interval(row["evaluation"].get("test/greedy_accuracy")),
        _number(row["evaluation"].get("dev/greedy_accuracy")),
        "\n".join(_reward_model(name, model) for name, model in row["reward_models"].items()) or "-",
        "\n".join(f"{name} {share:.0%}" for name, share in _largest_first(row)) or "-",
        f"{sum(row['seconds'].values()) / 60:.1f}",
    ]


def sources_table(summary: dict[str, Any]) -> Table | None:
    """Greedy accuracy by round and source with 95% interval and number of problems; None where there is one source."""
    names = {name.partition("/")[2] for row in summary["rounds"] for name in row["evaluation"]}
    metrics = accuracies_by_source(names)
    if not metrics:
        return None
    table = Table(title="Greedy accuracy by source", title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=0)
    for column in ("round", "source", "test", "dev"):
        table.add_column(column, justify="right" if column == "round" else "left", overflow="fold")
    for row in summary["rounds"]:
        for source, metric in metrics.items():
            values = (row["evaluation"].get(f"{split}/{metric}") for split in ("test", "dev"))
            cells = (_estimate(None if value is None else Estimate.model_validate(value)) for value in values)
            table.add_row(str(row["round"]), source, *cells)
    return table


def _largest_first(row: dict[str, Any]) -> list[tuple[str, float]]:
    return sorted(row["advantage_share"].items(), key=lambda item: -item[1])


def _standing(row: dict[str, Any], champion_id: str) -> str:
    standing = "baseline" if row["round"] == 0 else "promoted" if row["promoted"] else "refused"
    return f"{standing}\nchampion" if row["policy_id"] == champion_id else standing


def _interval(value: dict[str, Any] | None) -> str:
    """The estimate, with its 95% interval on a second line."""
    return "-" if value is None else f"{value['estimate']:.3f}\n{value['low']:.2f}-{value['high']:.2f}"


def _number(value: dict[str, Any] | None) -> str:
    return "-" if value is None else f"{value['estimate']:.3f}"


def _reward_model(name: str, model: dict[str, Any]) -> str:
    accuracy = "?" if model["accuracy"] is None else f"{model['accuracy']['estimate']:.2f}"
    return f"{name} {accuracy} {'ok' if model['accepted'] else 'refused'}"


def estimates_table(reports: Mapping[str, EvalReport]) -> Table:
    """One row per metric: the estimate on each split with its 95% interval and n."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=0)
    for column in ("metric", *reports):
        table.add_column(column, overflow="fold")
    names = dict.fromkeys(name for report in reports.values() for name in report.values)
    for name in names:
        table.add_row(name, *(_estimate(report.values.get(name)) for report in reports.values()))
    return table


def _estimate(value: Estimate | None) -> str:
    return "-" if value is None else f"{value.estimate:.3f} [{value.low:.3f}, {value.high:.3f}], n = {value.n}"


def verdict_on(name: str, report: RewardModelReport) -> str:
    """A reward model's verdict, accuracy and pair counts, and on a second line its path; or why it was not trained."""
    if not report.id:
        return f"{name} was not trained: {'; '.join(report.reasons)}"
    head = f"{name} {report.id[:8]} {'accepted' if report.accepted else 'refused'}"
    accuracy = report.accuracy
    facts = (
        []
        if accuracy is None
        else [f"held-out accuracy {accuracy.estimate:.2f} [{accuracy.low:.2f}, {accuracy.high:.2f}]"]
    )
    facts += [f"{report.num_train_pairs} training and {report.num_held_out_pairs} held-out pairs", *report.reasons]
    return f"{head}: {'; '.join(facts)}\n  {report.path}"
