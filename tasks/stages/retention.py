"""What the stages `evaluate` and `promote` do about old abilities: measuring the suites, their files and metrics."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from configs.disk.files import digest, read_jsonl, write_json, write_jsonl
from configs.records import Completion, Estimate, Policy
from configs.schema.config import Config
from configs.schema.measuring.retention import ChoiceSuite, GenerateSuite, TextSuite
from grpo_train.measuring.retention.changes import MEASURES, RetentionLoss, RetentionReport, losses, suite_estimates
from grpo_train.measuring.retention.forward_kl import first_responses, forward_kl
from grpo_train.measuring.retention.generating import generate_rows
from grpo_train.measuring.retention.likelihood import Row, choice_rows, text_rows
from grpo_train.measuring.retention.suites import read_choices, read_problems, read_texts, suite_digests
from grpo_train.policies.model import load_tokenizer
from grpo_train.sampling.asked import Write
from tasks.running.run import Run
from tasks.running.stage import Context
from tasks.runs.run_records import RoundRecords, RunRecords
from tasks.runs.stage_files import COMPLETIONS, RETENTION, RETENTION_ROWS, rows
from tasks.runs.workspace import round_folder
from tasks.stages.reward_ids import reward_ids, scoring_packages
from tasks.stages.writing import load_frozen

KL_TASK = "policy/kl_task"


# ---- what is read ---------------------------------------------------------------------------------------------------


def given_responses(run: Run, round_index: int) -> Path | None:
    """The responses of the given policy that the forward KL of a later round's policy is taken over; None where it is not
    measured."""
    settings = run.config.evaluation
    if round_index == 0 or not settings.retention or not settings.num_kl_problems:
        return None
    return round_folder(run.folder, 0) / "regenerate" / COMPLETIONS


def suite_inputs(config: Config, responses: str | None) -> dict[str, str]:
    """{name: digest} of the suites' data and of the given policy's responses."""
    of_kl = {} if responses is None else {"kl_task/responses": digest(Path(responses))}
    return suite_digests(config.evaluation.retention) | of_kl


def suite_scorers(config: Config) -> dict[str, str]:
    """{`scorer/retention/<suite>`: digest of what its checker checks by}"""
    found = {name: reward_ids([suite.checker]) for name, suite in _generate_suites(config).items()}
    return {f"scorer/retention/{name}": value for name, ids in found.items() for value in ids.values()}


def suite_packages(config: Config) -> dict[str, str]:
    """{distribution: version} of the packages that suites' checkers use."""
    return scoring_packages([suite.checker for suite in _generate_suites(config).values()])


def _generate_suites(config: Config) -> dict[str, GenerateSuite]:
    return {name: suite for name, suite in config.evaluation.retention.items() if isinstance(suite, GenerateSuite)}


# ---- what is measured -----------------------------------------------------------------------------------------------


def measure_generated(config: Config, policy: Policy, write: Write, context: Context) -> list[Row]:
    """The rows of the suites whose problems the policy answers."""
    suites, found = _generate_suites(config), []
    tokenizer = load_tokenizer(policy.path, config.template_settings) if suites else None
    for name, suite in suites.items():
        assert tokenizer is not None
        context.progress.say(f"old abilities: {name}")
        found += generate_rows(
            write,
            read_problems(suite, name, tokenizer),
            suite,
            name,
            policy_id=policy.id,
            max_rows=config.grpo_config.generation_rows,
            max_unscored_share=config.combination.max_unscored_share,
            should_stop=context.should_stop,
        )
    return found


def measure_likelihoods(
    config: Config, policy: Policy, given: Policy | None, responses: str | None, context: Context
) -> tuple[list[Row], Estimate | None]:
    """The rows of the suites that the policy reads, and the forward KL from the given policy; no model is loaded without both.

    The KL is 0 for the given policy itself, which has no `given` beside it.
    """
    suites = {
        name: suite for name, suite in config.evaluation.retention.items() if not isinstance(suite, GenerateSuite)
    }
    kl_task = None if responses is not None else _kl_of_itself(config)
    if not suites and responses is None:
        return [], kl_task
    model, tokenizer = load_frozen(config, policy), load_tokenizer(policy.path, config.template_settings)
    found: list[Row] = []
    for name, suite in suites.items():
        context.progress.say(f"old abilities: {name}")
        found += _likelihood_rows(model, tokenizer, suite, name, config, context)
    if responses is not None and given is not None:
        context.progress.say("KL from the given policy")
        kl_task = _kl_task(config, model, given, responses)
    return found, kl_task


def _likelihood_rows(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    suite: TextSuite | ChoiceSuite,
    name: str,
    config: Config,
    context: Context,
) -> list[Row]:
    max_tokens, stop = config.grpo_config.micro_batch_tokens, context.should_stop
    if isinstance(suite, TextSuite):
        texts = read_texts(suite, name)
        return text_rows(model, tokenizer, texts, suite, name, max_tokens=max_tokens, should_stop=stop)
    choices = read_choices(suite, name)
    return choice_rows(model, tokenizer, choices, suite, name, max_tokens=max_tokens, should_stop=stop)


def _kl_task(config: Config, model: PreTrainedModel, given: Policy, responses: str) -> Estimate | None:
    settings = config.regeneration
    written = first_responses(read_jsonl(Path(responses), Completion), given.id, config.evaluation.num_kl_problems)
    return forward_kl(
        written,
        model,
        lambda: load_frozen(config, given),
        whole_vocabulary=config.grpo_config.vllm is None or (settings.top_p == 1 and settings.top_k == 0),
        temperature=settings.temperature,
        max_tokens=config.grpo_config.micro_batch_tokens,
        run_seed=config.seed,
        draws=config.evaluation.bootstrap_draws,
    )


def _kl_of_itself(config: Config) -> Estimate | None:
    num_problems = min(config.evaluation.num_kl_problems, config.regeneration.num_problems)
    return Estimate(estimate=0.0, low=0.0, high=0.0, n=num_problems) if num_problems else None


def write_retention(
    out_dir: Path, config: Config, policy: Policy, measured: list[Row], kl_task: Estimate | None
) -> dict[str, float]:
    """Write retention.jsonl, a row an item in the order of the suites, and retention.json; returns the metrics."""
    by_suite = {name: [row for row in measured if row["suite"] == name] for name in config.evaluation.retention}
    ordered = [row for found in by_suite.values() for row in found]
    draws = config.evaluation.bootstrap_draws
    estimates = suite_estimates(ordered, run_seed=config.seed, draws=draws)
    report = RetentionReport(policy_id=policy.id, suites=estimates, kl_task=kl_task)
    write_jsonl(out_dir / RETENTION_ROWS, ordered)
    write_json(out_dir / RETENTION, report.model_dump())
    return measured_metrics(report)


# ---- what is told ---------------------------------------------------------------------------------------------------


def measured_metrics(report: RetentionReport) -> dict[str, float]:
    """{`retention/<suite>`: estimate} and, of choices, {`retention/<suite>/gold`: estimate}; and the forward KL."""
    values = {
        key_of(suite, measure): estimate.estimate
        for suite, measures in report.suites.items()
        for measure, estimate in measures.items()
    }
    return values if report.kl_task is None else values | {KL_TASK: report.kl_task.estimate}


def key_of(suite: str, measure: str) -> str:
    """The metric of a suite's measure."""
    return f"retention/{suite}" if measure == "value" else f"retention/{suite}/{measure}"


def change_metrics(records: RunRecords, record: RoundRecords) -> dict[str, float]:
    """The paired changes of a round's policy against the given one and against the champion that it was compared with."""
    compared = {"change": records.given, "change_champion": records.champion_before(record.index)}
    values: dict[str, float] = {}
    for suite in record.retention.suites if record.retention is not None else []:
        for measure in MEASURES:
            for name, before in compared.items():
                change = records.retention_change(before, record, suite, measure)
                if change is not None:
                    values[f"{key_of(suite, measure)}/{name}"] = change.estimate
    return values


def challenger_losses(config: Config, given: Path, challenger: Path) -> list[RetentionLoss]:
    """What a challenger lost against the given policy of the suites with a bound, from the rows of both."""
    return losses(
        rows(given),
        rows(challenger),
        config.promotion.retention,
        run_seed=config.seed,
        draws=config.evaluation.bootstrap_draws,
        confidence=config.promotion.confidence,
    )
