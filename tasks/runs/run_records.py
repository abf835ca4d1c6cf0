"""Reads what a run has written so far, to be shown to people: journals, reports and decisions, all from disk.

What is not there yet is None or empty, so that it can be shown as missing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from configs.disk.files import JournalLine
from configs.reader import parse_stored_config
from configs.records import Estimate, EvalReport, Policy, RewardModelReport
from configs.schema.config import Config
from configs.seeds import seed_for
from grpo_train.measuring.promotion import Decision
from grpo_train.observers.token_ledger import token_metrics
from grpo_train.observers.watch import Alarm, Watch
from grpo_train.train_result import TrainResult
from reward_training.statistics import bootstrap_mean
from tasks.runs import stage_files
from tasks.runs.history import rounds_wanted
from tasks.runs.run_file import RUN_FILE
from tasks.runs.stage_files import Row
from tasks.runs.workspace import BY_HAND


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

    @property
    def baseline(self) -> RoundRecords | None:
        return next((record for record in self.rounds if record.index == 0), None)

    @property
    def champion(self) -> RoundRecords | None:
        """The round whose policy is champion: the last one that was promoted, or round 0."""
        promoted = [record for record in self.rounds if record.decision is not None and record.decision.promoted]
        return promoted[-1] if promoted else self.baseline

    @property
    def is_finished(self) -> bool:
        wanted = rounds_wanted(self.folder, self.config.rounds)
        last = next((record for record in self.rounds if record.index == wanted), None)
        return last is not None and last.decision is not None and "regenerate" in last.seconds

    def paired_gain(self, split: str, metric: str) -> Estimate | None:
        """Mean of champion minus round 0 over their common problems, with a 95% interval; None without a promotion."""
        if self.baseline is None or self.champion is None:
            return None
        before, after = (_column(record.results, split, metric) for record in (self.baseline, self.champion))
        shared = [key for key in before if key in after]
        if not shared or self.champion is self.baseline:
            return None
        seed = seed_for(self.config.seed, f"gain {split} {metric}", round_index=self.champion.index)
        gains = [after[key] - before[key] for key in shared]
        return bootstrap_mean(gains, seed=seed, draws=self.config.evaluation.bootstrap_draws)

    def alarms(self) -> list[tuple[int, Alarm]]:
        """(round, alarm) for every watch rule whose patience ran out, found by replaying the journals."""
        return [(record.index, alarm) for record in self.rounds for alarm in _alarms(record, self.config)]


def read_run_records(folder: Path) -> RunRecords:
    """What the run in the folder `runs/<run>` wrote; most of it is read on first use.

    Raises:
        FileNotFoundError: `folder` holds no run.json.
        ConfigError: its configuration was written by a version with other fields.
    """
    run_file = json.loads((folder / RUN_FILE).read_bytes())
    given = run_file.get("given_policy")
    rounds = [RoundRecords(int(path.name.removeprefix("round_")), path) for path in sorted(folder.glob("round_[0-9]*"))]
    return RunRecords(
        name=run_file["name"],
        folder=folder,
        config=parse_stored_config(run_file["config"], run_file["name"]),
        given_policy=None if given is None else Policy.model_validate(given),
        rounds=rounds,
    )


def _alarms(record: RoundRecords, config: Config) -> Iterator[Alarm]:
    watch = Watch(config.watch)
    metrics: dict[int, dict[str, float]] = {}
    for line in record.journal:
        metrics.setdefault(line.step, {})[line.key] = line.value
    for step, values in metrics.items():
        yield from watch.examine(step, values)


def _column(rows: list[Row], split: str, metric: str) -> dict[str, float]:
    """{problem key: value} of a metric, for the problems of a split that have it."""
    return {row["problem_key"]: row[metric] for row in rows if row["split"] == split and metric in row}
