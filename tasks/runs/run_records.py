"""Reads what a run has written so far, to be shown to people: journals, reports and decisions, all from disk.

What is not there yet is None or empty, so that it can be shown as missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from configs.disk.files import JournalLine, read_jsonl
from configs.paths import Place
from configs.reader import parse_stored_config
from configs.records import Estimate, EvalReport, Policy, Problem, RewardModelReport
from configs.schema.config import Config
from configs.seeds import seed_for
from grpo_train.measuring.promotion import Decision
from grpo_train.measuring.retention.changes import RetentionReport, paired_change
from grpo_train.observers.token_ledger import token_metrics
from grpo_train.observers.watch import Alarm, Watch
from grpo_train.train_result import TrainResult
from reward_training.statistics import bootstrap_mean
from tasks.runs import stage_files
from tasks.runs.facts import Rollback, rollbacks
from tasks.runs.progress import champion_round, rounds_wanted
from tasks.runs.run_file import run_content
from tasks.runs.stage_files import Row
from tasks.runs.workspace import BY_HAND, before_cold_start_folder, cold_start_folder


@dataclass(frozen=True)
class RoundRecords:
    """What one round wrote to its folder."""

    index: int
    folder: Path

    @cached_property
    def reports(self) -> dict[str, EvalReport]:
        """{split: report} of the policy that the round trained (round 0: the given one)."""
        return stage_files.evaluation_reports(self.folder / "evaluate")

    @cached_property
    def results(self) -> list[Row]:
        return stage_files.rows(self.folder / "evaluate" / stage_files.RESULTS)

    @cached_property
    def examples(self) -> list[Row]:
        return stage_files.rows(self.folder / "evaluate" / stage_files.EXAMPLES)

    @cached_property
    def responses(self) -> dict[tuple[str, str], str]:
        """{(split, problem key): greedy response}: of every problem, or in older runs of the examples alone."""
        every = stage_files.rows(self.folder / "evaluate" / stage_files.RESPONSES) or self.examples
        return {(row["split"], row["problem_key"]): row["greedy"] for row in every}

    @cached_property
    def retention(self) -> RetentionReport | None:
        """What was measured of its old abilities; None where there are no suites."""
        return stage_files.retention_report(self.folder / "evaluate")

    @cached_property
    def retention_rows(self) -> list[Row]:
        return stage_files.rows(self.folder / "evaluate" / stage_files.RETENTION_ROWS)

    @cached_property
    def decision(self) -> Decision | None:
        return stage_files.decision(self.folder / "promote")

    @cached_property
    def reward_models(self) -> dict[str, RewardModelReport]:
        return self._reward_models("reward_model")

    @cached_property
    def reward_models_by_hand(self) -> dict[str, RewardModelReport]:
        """Reports of the reward models that were retrained by hand after the round, by name."""
        return self._reward_models(BY_HAND)

    def _reward_models(self, stage: str) -> dict[str, RewardModelReport]:
        folders = sorted((self.folder / stage).glob("*"))
        by_name = {folder.name: stage_files.reward_model_report(folder) for folder in folders}
        return {name: report for name, report in by_name.items() if report is not None}

    @cached_property
    def journal(self) -> list[JournalLine]:
        """The step metrics of the policy's training, in the order of writing."""
        return stage_files.journal(self.folder / "policy")

    @cached_property
    def seconds(self) -> dict[str, float]:
        """{stage: seconds} of the round's own finished stages, in the order they ran."""
        return {manifest.stage: manifest.seconds for manifest in stage_files.round_manifests(self.folder)}

    @cached_property
    def copied_from(self) -> dict[str, str]:
        """{stage: run} of those of its stages that were copied from another run, and took their seconds there."""
        manifests = stage_files.round_manifests(self.folder)
        return {manifest.stage: manifest.copied_from for manifest in manifests if manifest.copied_from is not None}

    @property
    def policy_id(self) -> str | None:
        return next((report.policy_id for report in self.reports.values()), None)

    def estimate(self, split: str, metric: str) -> Estimate | None:
        report = self.reports.get(split)
        return None if report is None else report.values.get(metric)

    def steps(self, key: str) -> list[tuple[int, float]]:
        """(step, value) of one step metric of the policy's training."""
        return [(line.step, line.value) for line in self.journal if line.key == key]

    @cached_property
    def training(self) -> TrainResult | None:
        """The result of the policy's training; None until it is finished."""
        return stage_files.train_result(self.folder / "policy")

    def advantage_share(self, objective: str) -> float | None:
        """An objective's share of all advantages of the round; None before training is finished."""
        return None if self.training is None else self.training.advantage_share.get(objective)

    @cached_property
    def tokens(self) -> dict[str, float]:
        """The round's token ledger as docs/metrics.md defines it; empty before training is finished."""
        return {} if self.training is None or not self.training.tokens else token_metrics(self.training.tokens)


@dataclass(frozen=True)
class RunRecords:
    """What a run wrote to its folder."""

    name: str
    folder: Path
    config: Config
    given_policy: Policy | None
    rounds: list[RoundRecords]
    created_ms: int | None = None
    predecessor: str | None = None

    @cached_property
    def versions(self) -> dict[str, list[str]]:
        """{package: versions that the finished stages ran with}; empty before the first stage."""
        found: dict[str, set[str]] = {}
        for record in self.rounds:
            for manifest in stage_files.round_manifests(record.folder):
                for name, version in manifest.versions.items():
                    found.setdefault(name, set()).add(version)
        return {name: sorted(versions) for name, versions in found.items()}

    @property
    def ended_ms(self) -> int | None:
        """The end of the last finished stage."""
        manifests = [m for record in self.rounds for m in stage_files.round_manifests(record.folder)]
        return max((manifest.ended_ms for manifest in manifests), default=None)

    def problems(self, split: str) -> dict[str, Problem]:
        """{key: problem} of a split, also of rounds that were added later."""
        paths = sorted(self.folder.glob(f"problems*/{split}.jsonl"))
        return {problem.key: problem for path in paths for problem in read_jsonl(path, Problem)}

    def champion_before(self, round_index: int) -> RoundRecords | None:
        """The round whose policy the challenger of a round was compared with."""
        index = 0
        for record in (record for record in self.rounds if record.index < round_index):
            if record.decision is not None and record.decision.promoted:
                index = record.index
            for back in self.rollbacks:
                if (back.after_round or 0) == record.index:
                    index = back.to_round if back.to_run == self.name else 0
        return next((record for record in self.rounds if record.index == index), self.baseline)

    @property
    def baseline(self) -> RoundRecords | None:
        return next((record for record in self.rounds if record.index == 0), None)

    @cached_property
    def cold_start(self) -> str | None:
        """What the cold start came to, in words; None without one, or before it is finished."""
        return cold_start_told(self.folder)

    @cached_property
    def given(self) -> RoundRecords | None:
        """What was measured of old abilities before anything was trained: before a cold start, or else in round 0."""
        before = RoundRecords(0, before_cold_start_folder(self.folder))
        return self.baseline if before.retention is None else before

    @cached_property
    def rollbacks(self) -> list[Rollback]:
        """The rollbacks that the run is touched by, oldest first."""
        return rollbacks(self.folder)

    @property
    def champion(self) -> RoundRecords | None:
        """The round whose policy is champion: the last one that was promoted, or that a rollback went back to; else round 0."""
        index = champion_round(self.folder)
        return next((record for record in self.rounds if record.index == index), self.baseline)

    @property
    def is_finished(self) -> bool:
        wanted = rounds_wanted(self.folder, self.config.rounds)
        last = next((record for record in self.rounds if record.index == wanted), None)
        return last is not None and last.decision is not None and "regenerate" in last.seconds

    def paired_gain(self, split: str, metric: str) -> Estimate | None:
        """Mean of champion minus round 0 over their common problems, with a 95% interval; None without a promotion."""
        if self.baseline is None or self.champion is None or self.champion is self.baseline:
            return None
        return paired_gain(self.baseline, self.champion, split, metric, self.config)

    def retention_change(
        self, before: RoundRecords | None, after: RoundRecords, suite: str, measure: str
    ) -> Estimate | None:
        """Mean of `after` minus `before` over a suite's common items, with a 95% interval; None without any."""
        if before is None or before is after:
            return None
        draws = self.config.evaluation.bootstrap_draws
        rows = before.retention_rows, after.retention_rows
        return paired_change(*rows, suite, measure, run_seed=self.config.seed, draws=draws)

    def alarms(self) -> list[tuple[int, Alarm]]:
        """(round, alarm) for every watch rule whose patience ran out, found by replaying the journals."""
        return [(record.index, alarm) for record in self.rounds for alarm in alarms_of(record, self.config)]


def read_run_records(folder: Path) -> RunRecords:
    """What the run in the folder `runs/<run>` wrote; most of it is read on first use.

    Raises:
        FileNotFoundError: `folder` holds no run.json.
        ConfigError: its configuration was written by a version with other fields.
    """
    run_file, place = run_content(folder), Place(folder.parent.parent, folder)
    given = run_file.get("given_policy")
    rounds = [RoundRecords(int(path.name.removeprefix("round_")), path) for path in sorted(folder.glob("round_[0-9]*"))]
    return RunRecords(
        name=run_file["name"],
        folder=folder,
        config=parse_stored_config(run_file["config"], run_file["name"]),
        given_policy=None if given is None else Policy.model_validate(given, context=place.context),
        rounds=rounds,
        created_ms=run_file.get("created_ms"),
        predecessor=run_file.get("predecessor"),
    )


def cold_start_told(run_dir: Path) -> str | None:
    """What the cold start of a run came to, in words; None without one, or before it is finished."""
    folder = cold_start_folder(run_dir)
    result, lines = stage_files.train_result(folder), stage_files.journal(folder)
    if result is None:
        return None
    if result.untrained is not None:
        return result.untrained
    counts = {line.key: line.value for line in lines if line.step == 0}
    losses = [line.value for line in lines if line.key == "policy/loss"]
    what, key = "demonstrations", "demonstrations/kept"
    if key not in counts:
        what, key = "own responses", "best_of_n/kept"
    return f"{counts[key]:,.0f} {what}, {result.num_updates:,} updates, loss {losses[0]:.3f} -> {losses[-1]:.3f}"


def paired_gain(before: RoundRecords, after: RoundRecords, split: str, metric: str, config: Config) -> Estimate | None:
    """Mean of `after` minus `before` over their common problems, with a 95% interval; None without such problems."""
    old, new = (_column(record.results, split, metric) for record in (before, after))
    gains = [new[key] - old[key] for key in old if key in new]
    if not gains:
        return None
    seed = seed_for(config.seed, f"gain {split} {metric}", round_index=after.index)
    return bootstrap_mean(gains, seed=seed, draws=config.evaluation.bootstrap_draws)


def alarms_of(record: RoundRecords, config: Config) -> Iterator[Alarm]:
    """Every watch rule whose patience ran out in the training of the round's policy, in order."""
    watch = Watch(config.watch)
    metrics: dict[int, dict[str, float]] = {}
    for line in record.journal:
        metrics.setdefault(line.step, {})[line.key] = line.value
    for step, values in metrics.items():
        yield from watch.examine(step, values)


def _column(rows: list[Row], split: str, metric: str) -> dict[str, float]:
    """{problem key: value} of a metric, for the problems of a split that have it."""
    return {row["problem_key"]: row[metric] for row in rows if row["split"] == split and metric in row}
