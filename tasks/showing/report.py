"""Writes `report.html`: what a run did, on one self-contained page, made from the run's folder alone.

Every number is in a `<data value="...">` element at the precision of the files. Texts of problems and policies are
untrusted: they are escaped, and the page's content security policy blocks scripts and everything that would be loaded.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from configs.disk.files import write_atomic
from configs.records import Estimate, Problem, Prompt
from configs.schema.rewards import ModelRewardConfig
from grpo_train.observers.token_ledger import CLASSES
from tasks.runs.run_records import RoundRecords, RunRecords, read_run_records
from tasks.runs.times import run_time
from tasks.showing.by_source import accuracies_by_source
from tasks.showing.changes import Changes, changes, compared_rounds, verdicts
from tasks.showing.figures import Line, advantage_shares, figures, over_distance, over_rounds, over_steps, trade_off
from tasks.showing.old_abilities import kept_of

REPORT_PAGE = "report.html"
SPLIT = "test"
"""whose problems are shown with their texts"""
NUM_CHANGED = 3
"""examples of what was learned, and of what was unlearned"""
MLFLOW_PAGE = "http://127.0.0.1:5000"
"""where `regroup ui` shows a store without a server of its own"""
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


def write_report(run_folder: Path, mlflow: Mapping[str, str | None] | None = None, *, into: Path | None = None) -> Path:
    """Write `report.html` into a folder, by default the run's, from the run's files so far; returns its path.

    `mlflow` says where the run is in MLflow, as `summary.json` does. The same files give the same page.
    """
    path = (into or run_folder) / REPORT_PAGE
    # a tokenizer may decode to lone surrogates, which UTF-8 cannot encode
    write_atomic(path, render(read_run_records(run_folder), mlflow or {}).encode(errors="replace"))
    return path


def render(records: RunRecords, mlflow: Mapping[str, str | None]) -> str:
    """The page as HTML."""
    environment = Environment(
        loader=PackageLoader("tasks.showing", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "estimate": estimate,
        "duration": duration,
        "share": share,
        "moment": moment,
    }
    return environment.get_template("report.html.jinja").render(
        records=records,
        config=records.config,
        missing=MISSING,
        outcome=outcome(records) + _rolled_back(records),
        first_policy=first_policy(records),
        alarms=records.alarms(),
        metrics=_rounds_metrics(records),
        by_source=_by_source(records),
        objectives=[reward.name for reward in records.config.rewards],
        token_classes=CLASSES,
        figures=_figures(records),
        samples=_samples(records),
        kept=[(record, kept_of(records, record)) for record in records.rounds if record.retention is not None],
        changed=_changed(records),
        changed_samples=_changed_samples(records),
        mlflow=mlflow,
        mlflow_url=_mlflow_url(mlflow),
        took=run_time(records.folder),
        in_rounds=sum(
            seconds
            for record in records.rounds
            for stage, seconds in record.seconds.items()
            if stage not in record.copied_from
        ),
    )


def _mlflow_url(mlflow: Mapping[str, str | None]) -> str | None:
    """Address of the run's page in MLflow; None where MLflow does not know the run, or was away when the report was written."""
    if not mlflow.get("run_id") or not mlflow.get("experiment_id"):
        return None
    uri = mlflow.get("tracking_uri") or ""
    server = uri.rstrip("/") if uri.startswith(("http://", "https://")) else MLFLOW_PAGE
    page = f"#/experiments/{mlflow['experiment_id']}/runs/{mlflow['run_id']}"
    return f"{server}/{page}?workflowType=machine_learning"  # MLflow's pages of training runs, not of applications


def outcome(records: RunRecords) -> Markup:
    """One sentence on the champion's gain in greedy accuracy over the policy that round 0 measured, on test."""
    before, after = (_test_accuracy(record) for record in (records.baseline, records.champion))
    if before is None or records.champion is None:
        return Markup("Nothing was measured yet.")
    if after is None or records.champion is records.baseline:
        verdict = "No challenger was promoted" if records.is_finished else "No challenger was promoted so far"
        told = "{}: greedy accuracy on test is that of {}, {}."
        return Markup(told).format(verdict, first_policy(records), estimate(before))
    sentence = Markup("Greedy accuracy on test {} over {} problems").format(
        _change(before.estimate, after.estimate), after.n
    )
    gain = records.paired_gain("test", "greedy_accuracy")
    return sentence + (Markup(": a paired gain of {}.").format(estimate(gain, signed=True)) if gain else Markup("."))


def first_policy(records: RunRecords) -> str:
    """What to call the policy that round 0 measured."""
    return "the given policy" if records.cold_start is None else "the policy after the cold start"


def _rolled_back(records: RunRecords) -> Markup:
    """A sentence for each rollback, empty without one."""
    return Markup("").join(Markup(" The run was {}.").format(str(back)) for back in records.rollbacks)


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


def moment(ms: int | None) -> Markup:
    """A time as `2026-03-01 04:30 UTC`."""
    if ms is None:
        return MISSING
    text = time.strftime("%Y-%m-%d %H:%M", time.gmtime(ms / 1000))
    return Markup('<time datetime="{}">{} UTC</time>').format(text.replace(" ", "T") + "Z", text)


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
        "shares": figures([advantage_shares(records)], label="each objective's share of the advantage by round"),
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
    return figures(panels, label="held-out measurements over rounds with 95% intervals")


def _by_source_figure(records: RunRecords) -> Markup:
    metrics = _by_source(records)
    panels = [
        over_rounds(records, f"greedy accuracy, {split}", [Line(name, split, key) for name, key in metrics.items()])
        for split in ("test", "dev")
    ]
    return figures(panels, label="greedy accuracy by source over rounds with 95% intervals")


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
        over_steps(records, "pairs in the right order (share)", {"share": "dpo/accuracy"}),
        over_steps(
            records, "implied reward", {"better": "dpo/chosen", "worse": "dpo/rejected", "margin": "dpo/margin"}
        ),
        over_steps(records, "problems that fit the curriculum", {"share": "curriculum/eligible_share"}),
    ]
    return figures(panels, label="training metrics by step, the rounds one after the other")


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
    return figures(panels, label="reward models beside the checker")


def _trade_offs_figure(records: RunRecords) -> Markup:
    """Each other objective against the checker, by round."""
    checkers, others = records.config.checkers, _measured(records)
    return figures(
        [trade_off(records, checker, name) for checker in checkers for name in others],
        label="objectives against the checker by round",
    )


def _samples(records: RunRecords) -> list[Sample]:
    """Test problems that are among the examples of both round 0 and the champion's round."""
    if records.baseline is None or records.champion is None or records.champion is records.baseline:
        return []
    after = {row["problem_key"]: row for row in records.champion.examples if row["split"] == SPLIT}
    rows = [row for row in records.baseline.examples if row["split"] == SPLIT and row["problem_key"] in after]
    right = [verdicts(record, SPLIT) for record in (records.baseline, records.champion)]
    return [
        Sample(
            prompt=_turns(row["prompt"]),
            answer=row["answer"],
            before=row["greedy"],
            after=after[row["problem_key"]]["greedy"],
            before_right=right[0].get(row["problem_key"]),
            after_right=right[1].get(row["problem_key"]),
            before_samples=row["samples"],
            after_samples=after[row["problem_key"]]["samples"],
        )
        for row in rows
    ]


def _changed(records: RunRecords) -> list[Changes]:
    """What became of the problems of dev and of test, for each two policies that are compared."""
    return [changes(*pair, split) for pair in compared_rounds(records) for split in ("test", "dev")]


def _changed_samples(records: RunRecords) -> dict[str, list[Sample]]:
    """Test problems that the last compared policy has learned and unlearned, the first ones of the split of each kind."""
    pairs = compared_rounds(records)
    if not pairs:
        return {}
    found = changes(*pairs[-1], SPLIT)
    problems = records.problems(SPLIT)
    return {
        "learned": list(_texts(found, found.learned, problems, before_right=False)),
        "unlearned": list(_texts(found, found.unlearned, problems, before_right=True)),
    }


def _texts(found: Changes, keys: list[str], problems: dict[str, Problem], *, before_right: bool) -> Iterator[Sample]:
    """The first problems among `keys` whose texts were kept."""
    texts = [(key, found.before.responses.get((SPLIT, key)), found.after.responses.get((SPLIT, key))) for key in keys]
    kept = [
        (problems[key], old, new) for key, old, new in texts if key in problems and old is not None and new is not None
    ]
    for problem, old, new in kept[:NUM_CHANGED]:
        yield Sample(_turns(problem.prompt), problem.answer, old, new, before_right, not before_right, [], [])


def _turns(prompt: Prompt) -> list[tuple[str, str]]:
    if isinstance(prompt, str):
        return [("text", prompt)]
    return [(message["role"], message["content"]) for message in prompt]
