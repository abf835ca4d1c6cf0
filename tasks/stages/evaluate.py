"""Measuring a policy on disk: reports with intervals, a row a problem, and examples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

from configs.disk.files import JOURNAL, Journal, digest, read_jsonl, write_json, write_jsonl
from configs.records import EvalReport, Policy, Problem
from grpo_train.measuring.evaluation import evaluate, num_responses
from grpo_train.policies.model import load_for_sampling
from reward_training.reward import take_metrics
from reward_training.scorer import RewardModelSource, build_rewards
from tasks.running.stage import ALONE, Context, StageSpec
from tasks.stages.reward_ids import model_ids, rubric_ids


class EvaluateSpec(StageSpec):
    """Which policy is measured on what."""

    reads: ClassVar[tuple[str, ...]] = ("seed", "rewards", "evaluation", "grpo_config")

    policy: Policy
    initial_policy: Policy | None
    problems: dict[str, str]
    """file of each split"""
    reward_models: dict[str, RewardModelSource]

    def inputs(self) -> dict[str, str]:
        files = {f"problems/{split}": digest(Path(path)) for split, path in self.problems.items()}
        initial = {"initial_policy": self.initial_policy.id} if self.initial_policy else {}
        return (
            {"policy": self.policy.id}
            | initial
            | files
            | model_ids(self.reward_models)
            | rubric_ids([*self.config.rewards, *self.config.evaluation.rewards])
        )


def run(spec: EvaluateSpec, out_dir: Path, context: Context = ALONE) -> None:
    """Write report.json, results.jsonl, examples.jsonl and the journal (each estimate, step = round)."""
    model, tokenizer = load_for_sampling(spec.policy.path, spec.config.grpo_config.precision)
    problems = {split: read_jsonl(Path(path), Problem) for split, path in spec.problems.items()}
    total, done = num_responses(spec.config, sum(map(len, problems.values()))), 0

    def on_progress(num_rows: int) -> None:
        nonlocal done
        done += num_rows
        context.progress.set(done, total=total, unit="responses")

    with build_rewards([*spec.config.rewards, *spec.config.evaluation.rewards], spec.reward_models) as rewards:
        evaluation = evaluate(
            model,
            tokenizer,
            problems,
            policy_id=spec.policy.id,
            initial_policy=spec.initial_policy,
            rewards=rewards,
            config=spec.config,
            round=spec.round,
            should_stop=context.should_stop,
            on_progress=on_progress,
        )
        taken = take_metrics(rewards)
    write_json(out_dir / "report.json", {name: report.model_dump() for name, report in evaluation.reports.items()})
    write_jsonl(out_dir / "results.jsonl", evaluation.rows)
    write_jsonl(out_dir / "examples.jsonl", evaluation.examples)
    Journal(out_dir / JOURNAL).write(spec.round, estimates(evaluation.reports) | taken)


def estimates(reports: dict[str, EvalReport]) -> dict[str, float]:
    """{`evaluation/<split>/<metric>`: estimate}."""
    return {
        f"evaluation/{split}/{name}": value.estimate
        for split, report in reports.items()
        for name, value in report.values.items()
    }


def load(out_dir: Path) -> dict[str, EvalReport]:
    """The report of each split."""
    data: dict[str, Any] = json.loads((out_dir / "report.json").read_bytes())
    return {split: EvalReport.model_validate(report) for split, report in data.items()}
