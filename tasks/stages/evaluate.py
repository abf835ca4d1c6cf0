"""The stage that measures a policy: reports with 95% intervals, one row per problem, and examples."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from configs.disk.files import JOURNAL, Journal, digest, read_jsonl, write_json, write_jsonl
from configs.records import EvalReport, Policy, Problem
from grpo_train.measuring.evaluation import evaluate, num_responses
from grpo_train.policies.model import load_for_sampling
from reward_training.reward import take_metrics
from reward_training.scorer import RewardModelSource, build_rewards
from tasks.running.run import Run
from tasks.running.stage import ALONE, TEMPLATE, Context, StageSpec, dataset_fact, run_stage
from tasks.runs.stage_files import EXAMPLES, REPORT, RESULTS, evaluation_reports
from tasks.runs.workspace import round_folder
from tasks.showing.page import show
from tasks.stages.reward_ids import model_ids, rubric_ids


def evaluate_policy(
    run: Run, round_index: int, policy: Policy, reward_models: Mapping[str, RewardModelSource]
) -> dict[str, EvalReport]:
    """Measure a policy on dev and test; returns {split: report}."""
    stage_dir = round_folder(run.folder, round_index) / "evaluate"
    splits = {split: run.problems(round_index, split) for split in ("dev", "test")}
    spec = EvaluateSpec(
        config=run.config,
        round=round_index,
        policy=policy,
        initial_policy=run.initial_policy,
        problems={split: str(path) for split, path in splits.items()},
        reward_models=dict(reward_models),
    )
    run_stage(
        run,
        spec,
        stage_dir,
        body,
        datasets=[dataset_fact(run, path, "evaluation", split) for split, path in splits.items()],
        tags={"regroup.policy_id": policy.id},
    )
    reports = evaluation_reports(stage_dir)
    show(run.name, f"round-{round_index}-evaluate", f"Evaluation of round {round_index}", estimates(reports))
    return reports


class EvaluateSpec(StageSpec):
    """Which policy is measured, on which problems and with which reward models."""

    policy: Policy
    initial_policy: Policy | None
    problems: dict[str, str]
    """{split: problems file}"""
    reward_models: dict[str, RewardModelSource]

    def reads(self) -> tuple[str, ...]:
        return ("seed", "rewards", "evaluation", "grpo_config", *TEMPLATE)

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


def body(spec: EvaluateSpec, out_dir: Path, context: Context = ALONE) -> None:
    """Write report.json, results.jsonl, examples.jsonl and the journal (one line per estimate, with step = round)."""
    model, tokenizer = load_for_sampling(
        spec.policy.path, spec.config.grpo_config.precision, spec.config.template_settings
    )
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
            round_index=spec.round,
            should_stop=context.should_stop,
            on_progress=on_progress,
        )
        reward_metrics = take_metrics(rewards)
    write_json(out_dir / REPORT, {name: report.model_dump() for name, report in evaluation.reports.items()})
    write_jsonl(out_dir / RESULTS, evaluation.rows)
    write_jsonl(out_dir / EXAMPLES, evaluation.examples)
    Journal(out_dir / JOURNAL).write(spec.round, estimates(evaluation.reports) | reward_metrics)


def estimates(reports: dict[str, EvalReport]) -> dict[str, float]:
    """{`evaluation/<split>/<metric>`: estimate} of all splits."""
    return {
        f"evaluation/{split}/{name}": value.estimate
        for split, report in reports.items()
        for name, value in report.values.items()
    }
