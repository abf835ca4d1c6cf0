"""The stage that trains a policy, from the champion or anew from the given policy, against the round's rewards.

A method that samples while it trains goes through `grpo_train.trainer`; one whose samples are there before through
`tasks.stages.offline_policy`.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from configs.disk.files import (
    JOURNAL,
    MANIFEST,
    Journal,
    append_jsonl,
    digest,
    digest_json,
    read_jsonl,
    write_json,
    write_jsonl,
)
from configs.errors import TrainingDiverged
from configs.records import Policy, Problem, RoundState
from configs.schema.config import Config, WatchRule
from configs.schema.grpo import GrpoConfig
from configs.schema.methods.method import Method, PairMethod, PpoMethod, is_offline
from configs.schema.problems import PredictedCurriculum, ThresholdCurriculum
from configs.seeds import seed_for
from grpo_train.following import Serving
from grpo_train.observers.watch import Alarm
from grpo_train.policies.adapter import FOLDER, Adapter, carried_adapter
from grpo_train.policies.model import load_policy, save_policy
from grpo_train.problems.splits import shard_name
from grpo_train.step import StepResult
from grpo_train.train_result import TrainResult
from grpo_train.trainer import num_steps, train
from grpo_train.updating.critic import ValueModel
from grpo_train.updating.ranks import Ranks
from reward_training.scorer import RewardModelSource, build_rewards
from reward_training.transformer.saving import try_saving
from reward_training.transformer.sharding import is_sharded
from tasks.alerting.happenings import tell_watch_rules
from tasks.running.launcher import launched
from tasks.running.memory import Memory
from tasks.running.run import Run
from tasks.running.stage import ALONE, Context, dataset_fact, run_stage
from tasks.running.stage_spec import TEMPLATE, StageSpec
from tasks.runs.cleaned import saved_policy
from tasks.runs.facts import ModelFact, Outcome
from tasks.runs.history import curriculum_before
from tasks.runs.run_records import RoundRecords
from tasks.runs.stage_files import CURRICULUM, KNOWN, RESULT, ROLLOUTS
from tasks.runs.workspace import round_folder
from tasks.stages.regenerate import by_problem, by_source, verdicts
from tasks.stages.reward_ids import OF_REWARDS, model_ids, reward_ids, scoring_packages
from tasks.stages.samples import Samples, samples_before
from tasks.stages.value_model import load_value_model

SERVED = "served"
"""folder of the weights that servers are given while the stage works"""


def train_policy(
    run: Run, round_index: int, state: RoundState, reward_models: Mapping[str, RewardModelSource]
) -> Policy:
    """Train the round's challenger from the champion of `state`, or from the given policy as `policy.start_from` says."""
    stage_dir = round_folder(run.folder, round_index) / "policy"
    start, curriculum = _start(run, round_index, state.champion)
    problems, split = run.problems(round_index, "train"), "train"
    # the responses of the policy that training starts from: round 0 sampled the given one
    sampled_before = 1 if run.config.policy.start_from == "given" else round_index
    samples = samples_before(run, sampled_before) if learns_from_samples(run.config.method) else None
    spec = PolicySpec(
        config=run.config,
        round=round_index,
        policy=start,
        initial_policy=run.initial_policy,
        problems=str(problems),
        reward_models=dict(reward_models),
        curriculum=curriculum,
        samples=samples,
    )
    if samples is not None and isinstance(run.config.method, PairMethod):
        problems, split = Path(samples.problems), shard_name(sampled_before - 1)

    def trained() -> Policy:
        return saved_policy(stage_dir / "model", round_index)

    if start.id != state.champion.id and not (stage_dir / MANIFEST).exists():
        run.console.say(f"round {round_index}: training starts anew from the given policy, not from the champion")
    run_stage(
        run,
        spec,
        stage_dir,
        launched(run.config.launcher, "policy", body, run.folder),
        datasets=[dataset_fact(run, problems, "training", split)],
        outcome=lambda: _outcome(run, trained(), start),
        tags={"regroup.parent_policy": start.id},
    )
    tell_watch_rules(run.alerts, run.config, RoundRecords(round_index, stage_dir.parent))
    return trained()


def _start(run: Run, round_index: int, champion: Policy) -> tuple[Policy, dict[str, Any] | None]:
    """(policy that the round's training starts from, state of the curriculum), as `policy.start_from` says."""
    if run.config.policy.start_from == "champion":
        return champion, _curriculum(run, round_index, champion)
    # pass rates of what other rounds trained say nothing of the given policy, so each round begins as the first did
    return run.given_policy, _curriculum(run, 1, run.given_policy)


def learns_from_samples(method: Method) -> bool:
    """Whether a training reads what the round before sampled."""
    return isinstance(method, PairMethod) or (isinstance(method, PpoMethod) and method.value_warmup_updates > 0)


def _curriculum(run: Run, round_index: int, policy: Policy) -> dict[str, Any] | None:
    """The curriculum state of the round before `round_index`, whose regeneration sampled `policy`.

    A curriculum by the policy's own pass rates also gets those of that regeneration: by source, or for predictions by problem.
    """
    config = run.config.curriculum
    before = curriculum_before(run.folder, round_index, inherited=run.file.curriculum)
    asks_sources = isinstance(config, ThresholdCurriculum) and config.difficulty == "policy"
    if not asks_sources and not isinstance(config, PredictedCurriculum):
        return before
    last_round = round_index - 1
    of_problems = verdicts(
        round_folder(run.folder, last_round) / "regenerate",
        run.problems(last_round, shard_name(last_round)),
        policy=policy,
        checker_of=run.config.checker_of,
    )
    regenerated = {"sources": by_source(of_problems)} if asks_sources else {"regenerated": by_problem(of_problems)}
    return (before or {"epoch": 0.0, "rates": {}}) | regenerated


def _outcome(run: Run, policy: Policy, parent: Policy) -> Outcome:
    tags = {"regroup.policy_id": policy.id, "regroup.parent_policy": parent.id}
    return Outcome(model=ModelFact(name=run.policy_model, folder="model", alias="challenger", tags=tags), tags=tags)


class PolicySpec(StageSpec):
    """The policy that training starts from, its problems, and the reward models that score it."""

    TOLD = OF_REWARDS
    """a policy that was trained stays, whatever becomes of the code of its rewards"""
    LEAST: ClassVar[str] = "method.min_score"
    """field with the score that the best of a group must be over to be imitated"""

    policy: Policy
    initial_policy: Policy
    problems: str
    """file of the training problems"""
    reward_models: dict[str, RewardModelSource]
    curriculum: dict[str, Any] | None = None
    """epoch and pass rates that the previous training handed on; None before the first"""
    samples: Samples | None = None
    """what the round before sampled, for a method that learns from it or warms its value model up on it; None for others"""

    @property
    def method(self) -> Method:
        return self.config.method

    @property
    def grpo(self) -> GrpoConfig:
        """The settings of optimizer and sampling."""
        return self.config.grpo_config

    @property
    def watch(self) -> list[WatchRule]:
        return self.config.watch

    def num_asked(self, num_problems: int) -> int:
        """How many of the training problems an offline method asks: as many as the steps of the loop would."""
        return num_steps(self.grpo, num_problems) * (self.grpo.batch_size // self.grpo.group_size)

    def scorers(self) -> dict[str, str]:
        return reward_ids(self.config.rewards)

    def scored_with(self) -> dict[str, str]:
        return scoring_packages(self.config.rewards)

    def reads(self) -> tuple[str, ...]:
        blocks = (
            "seed",
            "rewards",
            "combination",
            "method",
            "grpo_config",
            "curriculum",
            "watch",
            "policy.start_from",
            "budget",
        )
        return (*blocks, *TEMPLATE)

    def inputs(self) -> dict[str, str]:
        return {
            "policy": self.policy.id,
            "initial_policy": self.initial_policy.id,
            "problems": digest(Path(self.problems)),
            "curriculum": digest_json(self.curriculum),
            **model_ids(self.reward_models),
            **self.scorers(),
            **(self.samples.digests() if self.samples else {}),
        }

    @property
    def save_steps(self) -> int:
        return self.config.grpo_config.save_steps


def body(spec: PolicySpec, out_dir: Path, context: Context = ALONE) -> None:
    """Train the policy as the method says.

    Writes model/, the journal, result.json (number of updates, the watch rule that ended training, advantage shares, tokens
    by class), curriculum.json (the state for the next round), with servers known_tokens.jsonl and, with LoRA, adapter/. A
    method that samples while it trains writes rollouts.jsonl, another its training_pairs.jsonl, or completions.jsonl and scores.jsonl.

    Raises:
        TrainingDiverged: loss or gradient was not finite; of a method that samples, last_good/ holds the policy before that
            update.
    """
    memory = Memory()
    if not is_offline(spec.config.method):
        _sample_and_train(spec, out_dir, context, memory)
    else:
        from tasks.stages.offline_policy import train_offline  # with TRL, which the ranks of the others need not load

        train_offline(spec, out_dir, context, memory.metrics)


def _sample_and_train(spec: PolicySpec, out_dir: Path, context: Context, memory: Memory) -> None:
    """Of several ranks, only the main one writes; they save a sharded policy together."""
    ranks, lora = Ranks(), spec.config.grpo_config.lora
    base, carried = (lora and carried_adapter(spec.policy, lora)) or (spec.policy, None)
    model, tokenizer = _load(spec.config, base, ranks)
    if ranks.is_main:
        try_saving(model, tokenizer, out_dir)
    seed = seed_for(spec.config.seed, "adapter", round_index=spec.round)
    adapter = Adapter(model, lora, seed=seed, carried=carried) if lora else None
    problems = read_jsonl(Path(spec.problems), Problem)
    journal, total = Journal(out_dir / JOURNAL), num_steps(spec.config.grpo_config, len(problems))

    measured: set[str] = set()

    def on_step(result: StepResult) -> None:
        if not ranks.is_main:
            return
        measured.update(result.metrics)
        if result.step == min(total, max(2, spec.config.grpo_config.monitor_kl_every)):
            warn_of_never_measured(spec, measured, context)
        journal.write(result.step, result.metrics)
        append_jsonl(out_dir / ROLLOUTS, result.rollouts)
        for alarm in result.alarms:
            context.warn(f"round {spec.round}, step {result.step}: {alarm}{what_now(alarm, spec)}")
        warn_of_one_step(spec, result, context)
        context.written()
        context.progress.set(result.step, total=expected_steps(result, total), unit="updates")

    value_model = _value_model(spec, tokenizer, context)
    sharding = ranks.sharding("float32") if spec.config.launcher.shard else None  # autocast lowers what it multiplies
    with build_rewards(spec.config.rewards, spec.reward_models, context.waiting, sharding) as rewards:
        try:
            result = train(
                model,
                tokenizer,
                problems,
                policy=spec.policy,
                initial_policy=spec.initial_policy,
                rewards=rewards,
                config=spec.config,
                round_index=spec.round,
                curriculum=spec.curriculum,
                on_step=on_step,
                should_stop=context.should_stop,
                checkpoints=spec.checkpoints(out_dir, context.warn),
                serving=Serving(out_dir / SERVED, base, context.warn, context.should_stop),
                value_model=value_model,
                memory=memory.metrics,
            )
        except TrainingDiverged as error:
            last_good = out_dir / "last_good"
            _save(ranks, model, tokenizer, adapter, last_good, spec.round)
            raise TrainingDiverged(f"{error}; they are in {last_good}") from error
    if adapter is not None and ranks.is_main:
        adapter.save(out_dir / FOLDER, base)
    _save(ranks, model, tokenizer, adapter, out_dir / "model", spec.round)
    if not ranks.is_main:
        return
    warn_of_another_policy(spec, result, context)
    write_result(result, out_dir)


def _value_model(spec: PolicySpec, tokenizer: PreTrainedTokenizerBase, context: Context) -> ValueModel | None:
    """What the value model begins from; None for a method without one."""
    start = load_value_model(
        spec.config, spec.round, spec.policy, tokenizer, spec.reward_models, spec.samples, context.warn
    )
    if start is not None and start.samples.completions:
        context.progress.say("warming up the value model")
    return start


def expected_steps(result: StepResult, total: int) -> int:
    """About how many steps there will be of at most `total`, where a budget may end training before."""
    spent = result.metrics.get("budget/spent_share")
    return total if not spent else min(total, max(result.step, round(result.step / spent)))


def write_result(result: TrainResult, out_dir: Path) -> None:
    shutil.rmtree(out_dir / SERVED, ignore_errors=True)
    facts = asdict(result)
    write_json(out_dir / CURRICULUM, facts.pop("curriculum"))
    if known := facts.pop("known"):
        write_jsonl(out_dir / KNOWN, known)
    write_json(out_dir / RESULT, facts)


def _load(config: Config, policy: Policy, ranks: Ranks) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The policy, whole or, as `launcher.shard` says, this rank's part of it."""
    sharding = ranks.sharding(config.grpo_config.precision) if config.launcher.shard else None
    return load_policy(policy.path, device=ranks.device, template=config.template_settings, sharding=sharding)


def _save(
    ranks: Ranks,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    adapter: Adapter | None,
    folder: Path,
    round_index: int,
) -> None:
    """Save the policy with its adapter merged: the main rank writes it, and all ranks gather a sharded one."""
    if ranks.is_main or is_sharded(model):
        save_policy(adapter.merge() if adapter else model, tokenizer, folder, round_index=round_index)


def warn_of_one_step(spec: PolicySpec, result: StepResult, context: Context) -> None:
    """Warn if the first step spends the whole budget."""
    budget, metrics = spec.config.budget, result.metrics
    if budget is None or not result.is_budget_spent or result.step > 1:
        return
    context.warn(
        f"round {spec.round}: the first step wrote {metrics['tokens/generated']:.0f} tokens in {metrics['time/step']:.1f} s and spent "
        f"all of {budget}; the policy was trained for one step: raise the budget, or lower grpo_config.batch_size"
    )


def warn_of_another_policy(spec: PolicySpec, result: TrainResult, context: Context) -> None:
    """Warn if the policy is not that of the last update."""
    if result.rolled_back_to is not None:
        context.warn(f"round {spec.round}: the policy is that of step {result.rolled_back_to}; {result.stopped_by}")
    if result.untrained is not None:
        context.warn(f"round {spec.round}: {result.untrained}")


def warn_of_never_measured(spec: PolicySpec, measured: Collection[str], context: Context) -> None:
    for told in never_measured(spec.config.watch, measured):
        context.warn(f"round {spec.round}: {told}")


def never_measured(rules: Sequence[WatchRule], measured: Collection[str]) -> list[str]:
    """What is said of the rules whose metric is not among those of the first steps; a gap may be measured later."""
    unknown = [rule.metric for rule in rules if rule.metric not in measured and not rule.metric.startswith("gap/")]
    near = {metric: get_close_matches(metric, measured, n=1) for metric in unknown}
    return [
        f"watch looks at {metric!r}, which the first steps do not measure, so the rule does nothing"
        + (f"; did you mean {near[metric][0]!r}?" if near[metric] else "; docs/metrics.md lists what is measured")
        for metric in unknown
    ]


def what_now(alarm: Alarm, spec: PolicySpec) -> str:
    """The advice that is added to an alarm on a `gap/` metric which ends training; empty for other alarms.

    An exploited reward model can only unlearn the exploit from samples that show it, so it has to be retrained.
    """
    if alarm.rule.action == "warn" or not alarm.rule.metric.startswith("gap/"):
        return ""
    if spec.round < spec.config.rounds + alarm.rule.extra_rounds:
        return f"; round {spec.round + 1} retrains the reward models on what this policy writes"
    return f"; set rounds={spec.round + 1}, or extra_rounds of the rule, to retrain the reward models on what this policy writes and go on"
