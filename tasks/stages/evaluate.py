"""The stage that measures a policy: reports with 95% intervals, one row per problem, and examples."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from configs.disk.files import JOURNAL, Journal, digest, read_jsonl, write_json, write_jsonl
from configs.records import EvalReport, Policy, Problem
from grpo_train.measuring.evaluation import evaluate, num_responses
from reward_training.reward import take_metrics
from reward_training.scorer import RewardModelSource, build_rewards
from tasks.running.run import Run
from tasks.running.stage import ALONE, Context, dataset_fact, for_run, run_stage
from tasks.running.stage_spec import TEMPLATE, StageSpec, mismatch
from tasks.runs.stage_files import EXAMPLES, REPORT, RESPONSES, RESULTS, evaluation_reports, retention_report
from tasks.runs.workspace import round_folder
from tasks.showing.page import show
from tasks.stages.retention import (
    given_responses,
    measure_generated,
    measure_likelihoods,
    measured_metrics,
    suite_inputs,
    suite_packages,
    suite_scorers,
    write_retention,
)
from tasks.stages.reward_ids import model_ids, reward_ids, scoring_packages
from tasks.stages.writing import WRITTEN_BY, load_frozen, writing


def evaluate_policy(
    run: Run, round_index: int, policy: Policy, reward_models: Mapping[str, RewardModelSource]
) -> dict[str, EvalReport]:
    """Measure a policy on dev and test; returns {split: report}."""
    stage_dir, splits = _folder(run, round_index), _splits(run, round_index)
    spec = _spec(run, round_index, policy, reward_models)
    run_stage(
        run,
        spec,
        stage_dir,
        body,
        datasets=[dataset_fact(run, path, "evaluation", split) for split, path in splits.items()],
        tags={"regroup.policy_id": policy.id},
    )
    reports = evaluation_reports(stage_dir)
    shown, retention = estimates(reports), retention_report(stage_dir)
    shown |= measured_metrics(retention) if retention is not None else {}
    show(run.name, f"round-{round_index}-evaluate", f"Evaluation of round {round_index}", shown)
    return reports


def evaluation_stands(run: Run, policy: Policy, reward_models: Mapping[str, RewardModelSource]) -> bool:
    """Whether the evaluation of a policy in its own round is what would be measured today."""
    return mismatch(_folder(run, policy.round), for_run(run, _spec(run, policy.round, policy, reward_models))) is None


def _folder(run: Run, round_index: int) -> Path:
    return round_folder(run.folder, round_index) / "evaluate"


def _splits(run: Run, round_index: int) -> dict[str, Path]:
    return {split: run.problems(round_index, split) for split in ("dev", "test")}


def _spec(run: Run, round_index: int, policy: Policy, reward_models: Mapping[str, RewardModelSource]) -> EvaluateSpec:
    responses = given_responses(run, round_index)
    return EvaluateSpec(
        config=run.config,
        round=round_index,
        policy=policy,
        initial_policy=run.initial_policy,
        problems={split: str(path) for split, path in _splits(run, round_index).items()},
        reward_models=dict(reward_models),
        given_policy=None if responses is None else run.given_policy,
        given_responses=None if responses is None else str(responses),
    )


class EvaluateSpec(StageSpec):
    """Which policy is measured, on which problems and with which reward models."""

    policy: Policy
    initial_policy: Policy | None
    problems: dict[str, str]
    """{split: problems file}"""
    reward_models: dict[str, RewardModelSource]
    given_policy: Policy | None = None
    given_responses: str | None = None
    """file with responses of the given policy, over which the forward KL from it is taken; None where that is not measured, or
    the policy is the given one"""

    def scorers(self) -> dict[str, str]:
        return reward_ids([*self.config.rewards, *self.config.evaluation.rewards]) | suite_scorers(self.config)

    def scored_with(self) -> dict[str, str]:
        rewards = [*self.config.rewards, *self.config.evaluation.rewards]
        return scoring_packages(rewards) | suite_packages(self.config)

    def reads(self) -> tuple[str, ...]:
        return ("seed", "rewards", "evaluation", "grpo_config", *TEMPLATE)

    def depends_on(self) -> tuple[str, ...]:
        asked = ("combination.max_unscored_share", "regeneration.num_problems")
        return ("seed", "rewards", "evaluation", *asked, *WRITTEN_BY, *TEMPLATE)

    def inputs(self) -> dict[str, str]:
        files = {f"problems/{split}": digest(Path(path)) for split, path in self.problems.items()}
        initial = {"initial_policy": self.initial_policy.id} if self.initial_policy else {}
        suites = suite_inputs(self.config, self.given_responses)
        return {"policy": self.policy.id} | initial | files | model_ids(self.reward_models) | self.scorers() | suites


def body(spec: EvaluateSpec, out_dir: Path, context: Context = ALONE) -> None:
    """Write report.json, results.jsonl, examples.jsonl, responses.jsonl, and the journal with a line per estimate at step = round.

    Where there are suites of old abilities, also retention.json and retention.jsonl.
    """
    problems = {split: read_jsonl(Path(path), Problem) for split, path in spec.problems.items()}
    total, done = num_responses(spec.config, sum(map(len, problems.values()))), 0

    def on_progress(num_rows: int) -> None:
        nonlocal done
        done += num_rows
        context.progress.set(done, total=total, unit="responses")

    every_reward = [*spec.config.rewards, *spec.config.evaluation.rewards]
    with (
        writing(spec.config, spec.policy, context) as write,
        build_rewards(every_reward, spec.reward_models, context.waiting) as rewards,
    ):
        evaluation = evaluate(
            write,
            problems,
            policy=spec.policy,
            initial_policy=spec.initial_policy,
            load=partial(load_frozen, spec.config),
            rewards=rewards,
            config=spec.config,
            round_index=spec.round,
            should_stop=context.should_stop,
            on_progress=on_progress,
        )
        reward_metrics = take_metrics(rewards)
        generated = measure_generated(spec.config, spec.policy, write, context)
    for told_of in unscored(evaluation.reports):
        context.warn(f"round {spec.round}: {told_of}")
    write_json(out_dir / REPORT, {name: _as_json(report) for name, report in evaluation.reports.items()})
    write_jsonl(out_dir / RESULTS, evaluation.rows)
    write_jsonl(out_dir / EXAMPLES, evaluation.examples)
    write_jsonl(out_dir / RESPONSES, evaluation.responses)
    retention = _retention(spec, out_dir, generated, context)
    Journal(out_dir / JOURNAL).write(spec.round, estimates(evaluation.reports) | reward_metrics | retention)


def _retention(
    spec: EvaluateSpec, out_dir: Path, generated: list[dict[str, Any]], context: Context
) -> dict[str, float]:
    """Measure what is left of the old abilities and write it; returns the metrics, none without suites."""
    if not spec.config.evaluation.retention:
        return {}
    config, policy = spec.config, spec.policy
    read, kl_task = measure_likelihoods(config, policy, spec.given_policy, spec.given_responses, context)
    return write_retention(out_dir, config, policy, [*generated, *read], kl_task)


def _as_json(report: EvalReport) -> dict[str, Any]:
    """The report; `unscored` is there only where something is."""
    return report.model_dump(exclude=None if report.unscored else {"unscored"})


def unscored(reports: dict[str, EvalReport]) -> list[str]:
    """A sentence for each split and reward that could not score some responses, with their number by reason."""
    return [
        f"evaluation on {split}: reward {name!r} could not score {sum(reasons.values())} responses {reasons}; "
        "they count in no estimate"
        for split, report in reports.items()
        for name, reasons in report.unscored.items()
    ]


def estimates(reports: dict[str, EvalReport]) -> dict[str, float]:
    """{`evaluation/<split>/<metric>`: estimate} of all splits, and the number of responses that a reward could not score."""
    values = {
        f"evaluation/{split}/{name}": value.estimate
        for split, report in reports.items()
        for name, value in report.values.items()
    }
    return values | {
        f"evaluation/{split}/unscored/{name}": float(sum(reasons.values()))
        for split, report in reports.items()
        for name, reasons in report.unscored.items()
    }
