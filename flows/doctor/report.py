"""The command `regroup doctor CONFIG`: checks a configuration before a run, and estimates the time of a round.

`regroup run` starts with the same checks, but without sampling, without timing, and without worker processes
for checkers.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rich.table import Table
from rich.text import Text

from configs.errors import ConfigError
from configs.reader import load_comparison, load_methods
from configs.schema.comparing.compare import Comparison
from configs.schema.config import Config
from configs.schema.methods.method import PairMethod
from flows.doctor.architecture import check_adapters, check_architecture, check_positions
from flows.doctor.checks import (
    Finding,
    check_alerts,
    check_batches,
    check_launcher,
    check_model,
    check_pairs,
    check_sizes,
    check_splits,
    check_tokenizer,
)
from flows.doctor.cold_start import check_cold_start
from flows.doctor.golds import check_answer_types, check_gold_answers
from flows.doctor.preflight import preflight, preflight_checks, render_histogram, render_rewards
from flows.doctor.resources import check_disk, check_disk_of_runs, check_memory
from flows.doctor.retention import check_retention
from flows.doctor.rewards import check_columns, check_rewards, check_scopes, check_value_model
from flows.doctor.servers import check_vllm
from flows.doctor.special_tokens import check_special_tokens
from flows.doctor.templates import check_policy_template, check_reward_model_templates
from flows.doctor.timing import RoundTime, time_a_round
from grpo_train.policies.model import load_policy, load_tokenizer
from grpo_train.policies.model_source import prepare_policy
from grpo_train.problems.picking.curriculum import check_difficulty
from grpo_train.problems.splits import ProblemSet, load_problems, shard_name
from reward_training.rewards.columns import columns_read
from reward_training.transformer.precision import pick_device
from tasks.runs.workspace import models_folder
from tasks.showing.terminal import Terminal

STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}


@dataclass(frozen=True)
class DoctorReport:
    """All findings, and the model's folder and the problems if they could be read."""

    findings: list[Finding]
    policy_folder: Path | None = None
    problems: ProblemSet | None = None

    @property
    def failed(self) -> bool:
        return any(finding.status == "fail" for finding in self.findings)

    @property
    def failures(self) -> str:
        """All failures with their remedies, one per line."""
        failed = (finding for finding in self.findings if finding.status == "fail")
        return "\n".join(
            f"{finding.name}: {finding.detail}" + (f"; {finding.remedy}" if finding.remedy else "")
            for finding in failed
        )


def check(config: Config, workspace: Path, *, quick: bool = False, is_follow_on: bool = False) -> DoctorReport:
    """Check everything that the configuration names; a model that is not there yet is built or downloaded.

    `quick` leaves out gold answers for checkers that need worker processes (reasoning_gym, regex), `is_follow_on` the cold start,
    which a follow-on does not have.
    """
    findings = [*check_launcher(config), *check_alerts(config), *check_rewards(config)]
    try:
        folder = Path(prepare_policy(config.policy, models_folder(workspace)).path)
        tokenizer = load_tokenizer(folder, config.template_settings)
    except ConfigError as error:
        return DoctorReport([Finding("model", "fail", str(error)), *findings])
    model = check_model(folder)
    if model.status == "fail":
        return DoctorReport([model, *findings], folder)
    findings += [model, *check_tokenizer(tokenizer), *check_pairs(config)]
    findings += [check_memory(config, folder), check_disk(config, folder, workspace)]
    try:
        load = partial(
            load_problems,
            config.problems,
            config.regeneration,
            seed=config.seed,
            tokenizer=tokenizer,
            read=columns_read([*config.rewards, *config.evaluation.rewards]),
        )
        problems = load(rounds=config.rounds)
        if config.max_rounds > config.rounds:  # rounds that watch rules add need problems too
            load(rounds=config.max_rounds)
        check_difficulty(problems.by_split["train"], config.curriculum)
    except ConfigError as error:
        return DoctorReport([*findings, Finding("problems", "fail", str(error))], folder)
    findings += [*check_adapters(config, folder), *check_value_model(config, folder, tokenizer)]
    findings += check_positions(config, folder, tokenizer, problems.all)
    findings += check_vllm(config, folder, tokenizer, problems.all)
    findings += _check_problems(config, problems, quick=quick)
    if not is_follow_on:
        findings += check_cold_start(config, tokenizer, problems)
    findings += check_retention(config, folder, tokenizer, quick=quick)
    findings += check_special_tokens(config, tokenizer)
    findings += check_policy_template(config, folder, tokenizer, problems.all)
    findings += check_reward_model_templates(config, folder, problems.all, workspace)
    return DoctorReport(findings, folder, problems)


def _check_problems(config: Config, problems: ProblemSet, *, quick: bool) -> Iterator[Finding]:
    yield from check_splits(config, problems)
    yield check_batches(config, problems.counts["train"])
    yield from check_sizes(config)
    yield from check_scopes(config, problems.by_split)
    all_problems = problems.all
    yield from check_columns(config, all_problems)
    yield from check_answer_types(all_problems)
    yield from check_gold_answers(config, all_problems, quick=quick)


def refuse_faulty(config: Config, workspace: Path, *, is_follow_on: bool = False) -> DoctorReport:
    """Run the quick checks; returns the report.

    Raises:
        ConfigError: a check failed; the message has every failure with its remedy.
    """
    report = check(config, workspace, quick=True, is_follow_on=is_follow_on)
    if report.failed:
        raise ConfigError(report.failures)
    return report


def run_doctor(path: Path, overrides: tuple[str, ...], *, sample: bool = True) -> None:
    """Print the findings and, with `sample`, the results on sampled responses and the expected time of a round.

    Of a comparison each method is checked; the first one samples, and each that learns from pairs.

    Raises:
        ConfigError: a check failed.
    """
    terminal, configs = Terminal(), load_methods(path, list(overrides))
    reports = {method: check(method_config, Path.cwd()) for method, method_config in configs.items()}
    if len(configs) > 1:
        _check_all_runs(reports, load_comparison(path, list(overrides)))
    _print_findings(terminal, reports)
    if failures := [report.failures for report in reports.values() if report.failed]:
        raise ConfigError("\n".join(dict.fromkeys(failures)))
    if not sample:
        return
    for i, (method, config) in enumerate(configs.items()):
        if i == 0 or isinstance(config.method, PairMethod):  # which learns from other samples than the first one draws
            if len(configs) > 1:
                terminal.print(f"\nwhat follows is sampled by method {method}")
            _sample(terminal, config, reports[method])


def _check_all_runs(reports: dict[str, DoctorReport], comparison: Comparison) -> None:
    """Add to the report of the last method whether what all runs keep fits on the disk."""
    method, report = list(reports.items())[-1]
    if report.policy_folder is not None:
        runs = [member.config for member in comparison.as_many()]
        disk = check_disk_of_runs(runs, report.policy_folder, Path.cwd())
        reports[method] = replace(report, findings=[*report.findings, disk])


def _sample(terminal: Terminal, config: Config, report: DoctorReport) -> None:
    """Print what sampled responses tell, and the time of a round.

    Raises:
        ConfigError: a check failed.
    """
    assert report.policy_folder is not None
    assert report.problems is not None
    model, tokenizer = load_policy(report.policy_folder, device=pick_device(), template=config.template_settings)
    train = report.problems.by_split["train"]
    architecture = DoctorReport([check_architecture(config, model, tokenizer, report.problems.all)])
    terminal.print(render(architecture))
    if architecture.failed:
        raise ConfigError(architecture.failures)
    pairs = isinstance(config.method, PairMethod)
    result = preflight(config, model, tokenizer, report.problems.by_split[shard_name(0)] if pairs else train)
    sampled = DoctorReport(list(preflight_checks(result, config)))
    histogram = [render_histogram(result)] if result.pass_rates else []
    for part in (render(sampled), *histogram, render_rewards(result)):
        terminal.print("")
        terminal.print(part)
    terminal.print("")
    terminal.print(render_time(time_a_round(config, model, tokenizer, train, report.problems.counts)))
    if sampled.failed:
        raise ConfigError(sampled.failures)


def _print_findings(terminal: Terminal, reports: Mapping[str, DoctorReport]) -> None:
    """Those of one configuration; of the methods of a comparison each finding once, below the first method that has it, whatever
    memory and disk are free by then."""
    said: set[tuple[str, str, str]] = set()
    for method, report in reports.items():
        told = {
            finding: (finding.name, finding.status, finding.detail.partition(";")[0]) for finding in report.findings
        }
        new = [finding for finding, what in told.items() if what not in said]
        said.update(told.values())
        if len(reports) > 1:
            terminal.print(f"method {method}" if new else f"method {method}: as those before")
        if new:
            terminal.print(render(DoctorReport(new)))


def render(report: DoctorReport) -> Table:
    """The findings as a table."""
    table = Table("check", "", "found", box=None, pad_edge=False)
    for finding in report.findings:
        detail = f"{finding.detail}\n-> {finding.remedy}" if finding.remedy else finding.detail
        table.add_row(finding.name, Text(finding.status, STYLES[finding.status]), Text(detail))
    return table


def render_time(time: RoundTime) -> str:
    """One line with the time of a round and of each of its stages."""
    stages = ", ".join(f"{name} {duration(seconds)}" for name, seconds in time.seconds.items())
    return f"a round takes up to about {duration(time.total)} here: {stages}"


def duration(seconds: float) -> str:
    """Seconds as a rounded text.

    >>> duration(42), duration(600), duration(9000)
    ('42 s', '10 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
