"""The stage that trains a policy with GRPO, from the champion and against the round's rewards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from configs.disk.files import JOURNAL, Journal, append_jsonl, digest, digest_json, read_jsonl, write_json
from configs.errors import TrainingDiverged
from configs.records import Policy, Problem, RoundState
from configs.schema.problems import ThresholdCurriculum
from configs.seeds import seed_for
from grpo_train.observers.watch import Alarm
from grpo_train.policies.adapter import FOLDER, Adapter, carried_adapter
from grpo_train.policies.model import load_policy, open_policy, save_policy
from grpo_train.problems.splits import shard_name
from grpo_train.step import StepResult
from grpo_train.trainer import num_steps, train
from grpo_train.updating.ranks import Ranks
from reward_training.scorer import RewardModelSource, build_rewards
from reward_training.transformer.saving import try_saving
from tasks.running.launcher import launched
from tasks.running.run import Run
from tasks.running.stage import ALONE, TEMPLATE, Context, StageSpec, dataset_fact, run_stage
from tasks.runs.facts import ModelFact, Outcome
from tasks.runs.stage_files import CURRICULUM, RESULT, ROLLOUTS
from tasks.runs.workspace import round_folder
from tasks.stages.regenerate import pass_rates
from tasks.stages.reward_ids import model_ids, rubric_ids


def train_policy(
    run: Run, round_index: int, state: RoundState, reward_models: Mapping[str, RewardModelSource]
) -> Policy:
    """Train the round's challenger from the champion of `state`."""
    stage_dir = round_folder(run.folder, round_index) / "policy"
    problems = run.problems(round_index, "train")
    spec = PolicySpec(
        config=run.config,
        round=round_index,
        policy=state.champion,
        initial_policy=run.initial_policy,
        problems=str(problems),
        reward_models=dict(reward_models),
        curriculum=_curriculum(run, round_index, state),
    )

    def trained() -> Policy:
        return open_policy(stage_dir / "model", round_index)

    run_stage(
        run,
        spec,
        stage_dir,
        launched(run.config.launcher, "policy", body),
        datasets=[dataset_fact(run, problems, "training", "train")],
        outcome=lambda: _outcome(run, trained(), state.champion),
        tags={"regroup.parent_policy": state.champion.id},
    )
    return trained()


def _curriculum(run: Run, round_index: int, state: RoundState) -> dict[str, Any] | None:
    """The curriculum state of the previous round.

    A threshold curriculum on the policy's own pass rates also gets those of that round's regeneration, by source.
    """
    config = run.config.curriculum
    if not isinstance(config, ThresholdCurriculum) or config.difficulty == "data":
        return state.curriculum
    last_round = round_index - 1
    sources = pass_rates(
        round_folder(run.folder, last_round) / "regenerate",
        run.problems(last_round, shard_name(last_round)),
        policy=state.champion,
        checker_of=run.config.checker_of,
    )
    return (state.curriculum or {"epoch": 0.0, "rates": {}}) | {"sources": sources}


def _outcome(run: Run, policy: Policy, parent: Policy) -> Outcome:
    tags = {"regroup.policy_id": policy.id, "regroup.parent_policy": parent.id}
    return Outcome(model=ModelFact(name=run.policy_model, folder="model", alias="challenger", tags=tags), tags=tags)


class PolicySpec(StageSpec):
    """The policy that training starts from, its problems, and the reward models that score it."""

    policy: Policy
    initial_policy: Policy
    problems: str
    """file of the training problems"""
    reward_models: dict[str, RewardModelSource]
    curriculum: dict[str, Any] | None = None
    """epoch and pass rates that the previous training handed on; None before the first"""

    def reads(self) -> tuple[str, ...]:
        return ("seed", "rewards", "combination", "grpo_config", "curriculum", "watch", *TEMPLATE)

    def inputs(self) -> dict[str, str]:
        return {
            "policy": self.policy.id,
            "initial_policy": self.initial_policy.id,
            "problems": digest(Path(self.problems)),
            "curriculum": digest_json(self.curriculum),
            **model_ids(self.reward_models),
            **rubric_ids(self.config.rewards),
        }

    @property
    def save_steps(self) -> int:
        return self.config.grpo_config.save_steps


def body(spec: PolicySpec, out_dir: Path, context: Context = ALONE) -> None:
    """Train the policy. Of several ranks, only the main one writes.

    Writes model/, rollouts.jsonl, the journal, result.json (number of updates, the watch rule that ended training,
    advantage shares, tokens by class), curriculum.json (the state for the next round) and, with LoRA, adapter/.

    Raises:
        TrainingDiverged: loss or gradient was not finite; last_good/ holds the policy before that update.
    """
    ranks, lora = Ranks(), spec.config.grpo_config.lora
    base, carried = (lora and carried_adapter(spec.policy, lora)) or (spec.policy, None)
    model, tokenizer = load_policy(base.path, device=ranks.device, template=spec.config.template_settings)
    if ranks.is_main:
        try_saving(model, tokenizer, out_dir)
    seed = seed_for(spec.config.seed, "adapter", round_index=spec.round)
    adapter = Adapter(model, lora, seed=seed, carried=carried) if lora else None
    problems = read_jsonl(Path(spec.problems), Problem)
    journal, total = Journal(out_dir / JOURNAL), num_steps(spec.config.grpo_config, len(problems))

    def on_step(result: StepResult) -> None:
        if not ranks.is_main:
            return
        journal.write(result.step, result.metrics)
        append_jsonl(out_dir / ROLLOUTS, result.rollouts)
        for alarm in result.alarms:
            context.warn(f"round {spec.round}, step {result.step}: {alarm}{what_now(alarm, spec)}")
        context.written()
        context.progress.set(result.step, total=total, unit="updates")

    with build_rewards(spec.config.rewards, spec.reward_models) as rewards:
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
            )
        except TrainingDiverged as error:
            if not ranks.is_main:
                raise
            last_good = save_policy(
                adapter.merge() if adapter else model, tokenizer, out_dir / "last_good", round_index=spec.round
            )
            raise TrainingDiverged(f"{error}; they are in {last_good.path}") from error
    if not ranks.is_main:
        return
    if result.rolled_back_to is not None:
        context.warn(f"round {spec.round}: the policy is that of step {result.rolled_back_to}; {result.stopped_by}")
    if adapter is not None:
        adapter.save(out_dir / FOLDER, base)
        model = adapter.merge()
    save_policy(model, tokenizer, out_dir / "model", round_index=spec.round)
    facts = asdict(result)
    write_json(out_dir / CURRICULUM, facts.pop("curriculum"))
    write_json(out_dir / RESULT, facts)


def what_now(alarm: Alarm, spec: PolicySpec) -> str:
    """The advice that is added to an alarm on a `gap/` metric which ends training; empty for other alarms.

    An exploited reward model can only unlearn the exploit from samples that show it, so it has to be retrained.
    """
    if alarm.rule.action == "warn" or not alarm.rule.metric.startswith("gap/"):
        return ""
    if spec.round < spec.config.rounds + alarm.rule.extra_rounds:
        return f"; round {spec.round + 1} retrains the reward models on what this policy writes"
    return f"; set rounds={spec.round + 1}, or extra_rounds of the rule, to retrain the reward models on what this policy writes and go on"
