"""The stage that measures the old abilities of the policy as it was given, before a cold start: what is lost is lost against it."""

from __future__ import annotations

from pathlib import Path

from configs.disk.files import JOURNAL, Journal
from configs.records import Policy
from tasks.running.run import Run
from tasks.running.stage import ALONE, Context, for_run, run_stage
from tasks.running.stage_spec import TEMPLATE, StageSpec, mismatch
from tasks.runs.stage_files import RETENTION_ROWS
from tasks.runs.workspace import before_cold_start_folder, round_folder
from tasks.stages.cold_start.stage import as_given, begins_cold
from tasks.stages.retention import (
    measure_generated,
    measure_likelihoods,
    suite_inputs,
    suite_packages,
    suite_scorers,
    write_retention,
)
from tasks.stages.writing import WRITTEN_BY, writing


def measure_before(run: Run) -> None:
    """Make sure that the suites of the policy before the cold start are measured; nothing without suites or a cold start."""
    if _is_measured(run):
        run_stage(run, _spec(run), _folder(run), body, tags={"regroup.policy_id": as_given(run).id})


def before_stands(run: Run) -> bool:
    """Whether what was measured is what would be measured today, as where there is nothing to measure."""
    return not _is_measured(run) or mismatch(_folder(run), for_run(run, _spec(run))) is None


def given_retention_rows(run: Run) -> Path:
    """The file with the suites' rows of the policy as it was given, which round 0 measures unless there is a cold start."""
    return (_folder(run) if begins_cold(run) else round_folder(run.folder, 0) / "evaluate") / RETENTION_ROWS


def _is_measured(run: Run) -> bool:
    return begins_cold(run) and bool(run.config.evaluation.retention)


def _folder(run: Run) -> Path:
    return before_cold_start_folder(run.folder) / "evaluate"


def _spec(run: Run) -> BeforeSpec:
    return BeforeSpec(config=run.config, round=0, policy=as_given(run))


class BeforeSpec(StageSpec):
    """The policy as it was given."""

    policy: Policy

    def scorers(self) -> dict[str, str]:
        return suite_scorers(self.config)

    def scored_with(self) -> dict[str, str]:
        return suite_packages(self.config)

    def reads(self) -> tuple[str, ...]:
        return ("seed", "evaluation", "grpo_config", *TEMPLATE)

    def depends_on(self) -> tuple[str, ...]:
        asked = ("combination.max_unscored_share", "regeneration.num_problems")
        return ("seed", "evaluation", *asked, *WRITTEN_BY, *TEMPLATE)

    def inputs(self) -> dict[str, str]:
        return {"policy": self.policy.id} | self.scorers() | suite_inputs(self.config, None)


def body(spec: BeforeSpec, out_dir: Path, context: Context = ALONE) -> None:
    """Write retention.json, retention.jsonl and the journal, as an evaluation does."""
    config, policy = spec.config, spec.policy
    with writing(config, policy, context) as write:
        generated = measure_generated(config, policy, write, context)
    read, _ = measure_likelihoods(config, policy, None, None, context)
    Journal(out_dir / JOURNAL).write(0, write_retention(out_dir, config, policy, [*generated, *read], None))
