"""Writes `report.html`: what a run did, on one self-contained page, made from the run's folder alone.

Every number is in a `<data value="...">` element at the precision of the files. Texts of problems and policies are
untrusted: they are escaped, and the page's content security policy blocks scripts and everything that would be loaded.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from configs.disk.files import write_atomic
from configs.records import Estimate, Prompt
from configs.schema.rewards import ModelRewardConfig
from grpo_train.observers.token_ledger import CLASSES
from tasks.runs.run_records import RoundRecords, RunRecords, read_run_records
from tasks.runs.stage_files import Row
from tasks.showing.by_source import accuracies_by_source
from tasks.showing.figures import Line, advantage_shares, over_distance, over_rounds, over_steps, svg, trade_off

REPORT_PAGE = "report.html"
MISSING = Markup('<span class="missing" title="not there">–</span>')


@dataclass(frozen=True)
class Sample:
    """One problem with the responses of two policies; `before_right` and `after_right` are None if unknown."""

    prompt: list[tuple[str, str]]
    answer: str | None
    before: str
    after: str
    before_right: bool | None
    after_right: bool | None
    after_samples: list[str]
    before_samples: list[str]


def write_report(run_folder: Path) -> Path:
    """Write `report.html` into the run's folder from the files there so far; returns its path."""
    path = run_folder / REPORT_PAGE
    # a tokenizer may decode to lone surrogates, which UTF-8 cannot encode
    write_atomic(path, render(read_run_records(run_folder)).encode(errors="replace"))
    return path


def render(records: RunRecords) -> str:
    """The page as HTML."""
    environment = Environment(
        loader=PackageLoader("tasks.showing", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "estimate": estimate, "duration": duration, "share": share}
    return environment.get_template("report.html.jinja").render(
        records=records,
        config=records.config,
        missing=MISSING,
        outcome=outcome(records),
        alarms=records.alarms(),
        metrics=_rounds_metrics(records),
        by_source=_by_source(records),
        objectives=[reward.name for reward in records.config.rewards],
        token_classes=CLASSES,
        figures=_figures(records),
        samples=_samples(records),
        made=time.strftime("%Y-%m-%d %H:%M"),
    )


def outcome(records: RunRecords) -> Markup:
    """One sentence on the champion's gain in greedy accuracy over the given policy, on test."""
    before, after = (_test_accuracy(record) for record in (records.baseline, records.champion))
    if before is None or records.champion is None:
        return Markup("Nothing was measured yet.")
    if after is None or records.champion is records.baseline:
        verdict = "No challenger was promoted" if records.is_finished else "No challenger was promoted so far"
        return Markup("{}: greedy accuracy on test is that of the given policy, {}.").format(verdict, estimate(before))
    sentence = Markup("Greedy accuracy on test {} over {} problems").format(
        _change(before.estimate, after.estimate), after.n
    )
    gain = records.paired_gain("test", "greedy_accuracy")
    return sentence + (Markup(": a paired gain of {}.").format(estimate(gain, signed=True)) if gain else Markup("."))


def _change(before: float, after: float) -> Markup:
    if before == after:
        return Markup("stayed at {}").format(number(after))
    verb = "rose" if after > before else "fell"
    return Markup("{} from {} to {}").format(verb, number(before), number(after))


def _test_accuracy(record: RoundRecords | None) -> Estimate | None:
    return None if record is None else record.estimate("test", "greedy_accuracy")


# ---- numbers --------------------------------------------------------------------------------------------------------


def number(value: float | None, places: int = 3, *, signed: bool = False) -> Markup:
    """`value` rounded to `places` decimals, with all digits in the `value` attribute."""
    if value is None:
        return MISSING
    text = f"{value:+z.{places}f}" if signed else f"{value:z.{places}f}"
    return Markup('<data value="{}">{}</data>').format(repr(value), text)


def estimate(value: Estimate | None, places: int = 3, *, signed: bool = False) -> Markup:
    """An estimate as `0.320 [0.262, 0.379]`, with the interval in smaller print."""
    if value is None:
        return MISSING
    low, high = (number(bound, places, signed=signed) for bound in (value.low, value.high))
    interval = Markup('<span class="interval" title="95% interval, n = {}">[{}, {}]</span>').format(value.n, low, high)
    return number(value.estimate, places, signed=signed) + Markup(" ") + interval


def share(value: float | None) -> Markup:
    return MISSING if value is None else Markup('<data value="{}">{}</data>').format(repr(value), f"{value:.0%}")


def duration(seconds: float | None) -> Markup:
    if seconds is None:
        return MISSING
    text = f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
    return Markup('<data value="{}">{}</data>').format(repr(seconds), text)


# ---- parts of the page ----------------------------------------------------------------------------------------------


def _rounds_metrics(records: RunRecords) -> list[str]:
    """Metrics in the table of rounds beside greedy accuracy: pass@k and maj@k at the largest k."""
    names = {name for record in records.rounds for report in record.reports.values() for name in report.values}
    return [group[-1] for kind in ("pass_at_", "maj_at_") if (group := _by_k(names, kind))]


def _by_k(names: set[str], kind: str) -> list[str]:
    return sorted((name for name in names if name.startswith(kind)), key=lambda name: int(name.rsplit("_", 1)[1]))


def _by_source(records: RunRecords) -> dict[str, str]:
    """{source: metric} of the accuracy by source; empty where there is one source."""
    return accuracies_by_source(
        name for record in records.rounds for report in record.reports.values() for name in report.values
    )


def _figures(records: RunRecords) -> dict[str, Markup]:
    return {
        "rounds": _rounds_figure(records),
        "by_source": _by_source_figure(records),
        "steps": _steps_figure(records),
        "shares": svg([advantage_shares(records)], columns=2, label="Each objective's share of the advantage by round"),
        "proxy": _proxy_figure(records),
        "trade_offs": _trade_offs_figure(records),
    }


def _rounds_figure(records: RunRecords) -> Markup:
    names = {name for record in records.rounds for report in record.reports.values() for name in report.values}
    at_k = [*_by_k(names, "pass_at_"), *_by_k(names, "maj_at_")]
    panels = [
        over_rounds(records, "greedy accuracy", [Line(split, split, "greedy_accuracy") for split in ("test", "dev")]),
        over_rounds(records, "sampled, test", [Line(name.replace("_at_", "@"), "test", name) for name in at_k]),
        over_rounds(records, "KL from the initial policy, test (nats)", [Line("test", "test", "kl_initial")]),
        over_rounds(records, "response length, test (tokens)", [Line("test", "test", "response_length")]),
        over_rounds(records, "truncated share, test", [Line("test", "test", "truncated_share")]),
        *(
            over_rounds(records, f"{name}, greedy, test", [Line(name, "test", f"greedy/{name}")])
            for name in _measured(records)
        ),
    ]
    return svg(panels, label="Held-out measurements over rounds with 95% intervals")


def _by_source_figure(records: RunRecords) -> Markup:
    metrics = _by_source(records)
    panels = [
        over_rounds(records, f"greedy accuracy, {split}", [Line(name, split, key) for name, key in metrics.items()])
        for split in ("test", "dev")
    ]
    return svg(panels, columns=2, label="Greedy accuracy by source over rounds with 95% intervals")


def _measured(records: RunRecords) -> list[str]:
    """Names of the objectives other than the checkers, whose mean is the accuracy."""
    return [
        r.name
        for r in [*records.config.rewards, *records.config.evaluation.rewards]
        if r.name not in records.config.checkers
    ]


def _at_fault(records: RunRecords) -> dict[str, str]:
    """{name: key} of the objectives whose checker some response made fail."""
    keys = {reward.name: f"objective/{reward.name}/at_fault_share" for reward in records.config.rewards}
    return {n: key for n, key in keys.items() if any(value for r in records.rounds for _, value in r.steps(key))}


def _steps_figure(records: RunRecords) -> Markup:
    objectives = [reward.name for reward in records.config.rewards]
    panels = [
        over_steps(records, "reward", {"reward": "reward/mean"}),
        *(over_steps(records, f"objective {name}", {name: f"objective/{name}/mean"}) for name in objectives),
        over_steps(records, "entropy (nats a token)", {"entropy": "policy/entropy"}),
        over_steps(records, "KL from the initial policy (nats)", {"KL": "policy/kl_initial"}),
        over_steps(
            records,
            "share of groups",
            {"dead": "groups/dead_share", "all right": "groups/all_right_share", "all wrong": "groups/all_wrong_share"},
        ),
        over_steps(records, "response length (tokens)", {"mean": "response/length_mean"}),
        over_steps(
            records,
            "share cut off",
            {"truncated": "response/truncated_share", "aborted": "response/aborted_share"},
        ),
        over_steps(records, "share of responses at fault", _at_fault(records)),
        over_steps(
            records,
            "response cache",
            {"used share": "cache/used_share", "effective share": "cache/effective_share"},
        ),
        over_steps(records, "gradient norm", {"norm": "policy/grad_norm"}),
        over_steps(records, "share of tokens", {name: f"tokens/{name}_share" for name in CLASSES}),
        over_steps(records, "refused groups", {"refused": "groups/refused"}),
        over_steps(records, "problems that fit the curriculum", {"share": "curriculum/eligible_share"}),
    ]
    return svg(panels, label="Training metrics by step, the rounds one after the other")


def _proxy_figure(records: RunRecords) -> Markup:
    """Means of the reward models and of the checkers on the same samples."""
    models = [
        r.name
        for r in [*records.config.rewards, *records.config.evaluation.rewards]
        if isinstance(r, ModelRewardConfig)
    ]
    if not models:
        return Markup("")
    checkers = records.config.checkers
    panels = [
        over_rounds(records, f"reward model {name}, test", [Line(name, "test", f"sampled/{name}")]) for name in models
    ]
    panels += [
        over_rounds(records, f"checker {name}, test", [Line(name, "test", f"sampled/{name}")]) for name in checkers
    ]
    panels += [
        over_steps(records, f"reward model {name}, training", {name: f"objective/{name}/mean"}) for name in models
    ]
    panels += [over_steps(records, f"checker {name}, training", {name: f"objective/{name}/mean"}) for name in checkers]
    panels += [
        over_distance(records, f"{name} by distance", f"objective/{name}/mean", i % 8)
        for i, name in enumerate([*models, *checkers])
    ]
    return svg(panels, columns=2, label="Reward models beside the checker")


def _trade_offs_figure(records: RunRecords) -> Markup:
    """Each other objective against the checker, by round."""
    checkers, others = records.config.checkers, _measured(records)
    return svg(
        [trade_off(records, checker, name) for checker in checkers for name in others],
        label="Objectives against the checker by round",
    )


def _samples(records: RunRecords) -> list[Sample]:
    """Test problems that are among the examples of both round 0 and the champion's round."""
    if records.baseline is None or records.champion is None or records.champion is records.baseline:
        return []
    after = {row["problem_key"]: row for row in records.champion.examples if row["split"] == "test"}
    rows = [row for row in records.baseline.examples if row["split"] == "test" and row["problem_key"] in after]
    return [_sample(records.baseline, records.champion, row, after[row["problem_key"]]) for row in rows]


def _sample(before: RoundRecords, after: RoundRecords, old: Row, new: Row) -> Sample:
    return Sample(
        prompt=_turns(old["prompt"]),
        answer=old["answer"],
        before=old["greedy"],
        after=new["greedy"],
        before_right=_is_right(before, old["problem_key"]),
        after_right=_is_right(after, new["problem_key"]),
        before_samples=old["samples"],
        after_samples=new["samples"],
    )


def _turns(prompt: Prompt) -> list[tuple[str, str]]:
    if isinstance(prompt, str):
        return [("text", prompt)]
    return [(message["role"], message["content"]) for message in prompt]


def _is_right(record: RoundRecords, problem_key: str) -> bool | None:
    values: list[Any] = [
        row.get("greedy_accuracy")
        for row in record.results
        if (row["split"], row["problem_key"]) == ("test", problem_key)
    ]
    return bool(values[0]) if values and values[0] is not None else None
