"""The stage that fine-tunes the given policy once, before round 0 measures it, on demonstrations or on its own best samples.

What it makes is the run's given and initial policy from then on: round 0 measures it, KL is taken from it, and training goes back
to it with `policy.start_from: given`. `run.json` keeps the one before it too. A follow-on has no cold start: it goes on from a
champion.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from configs.disk.files import digest, read_manifest
from configs.errors import ConfigError
from configs.records import Policy
from configs.schema.config import WatchRule
from configs.schema.grpo import GrpoConfig
from configs.schema.methods.cold_start import ColdStartConfig
from configs.schema.methods.method import BestOfNMethod
from grpo_train.methods.demonstrations import demonstrations_digest
from reward_training.scorer import RewardModelSource
from tasks.running.launcher import launched
from tasks.running.run import Run
from tasks.running.stage import ALONE, Context, dataset_fact, run_stage
from tasks.running.stage_spec import TEMPLATE
from tasks.runs.cleaned import saved_policy
from tasks.runs.facts import DatasetFact, ModelFact, Outcome
from tasks.runs.run_file import write_run
from tasks.runs.run_records import cold_start_told
from tasks.runs.workspace import cold_start_folder
from tasks.stages.policy import PolicySpec
from tasks.stages.prepare import MEASURED
from tasks.stages.reward_ids import model_ids, reward_ids, scoring_packages


def begins_cold(run: Run) -> bool:
    """Whether the run fine-tunes the policy that it was given; a follow-on goes on from a champion instead."""
    return run.config.cold_start is not None and run.file.predecessor is None


def as_given(run: Run) -> Policy:
    """The policy as the run was given it, before a cold start."""
    return run.file.before_cold_start or run.given_policy


def refuse_before_cold_start(run: Run, policy: Policy | None) -> None:
    """Refuse a policy of round 0 that is not what the run's cold start made, as before it is done, or while it is done anew.

    Raises:
        ConfigError: it is not.
    """
    if not begins_cold(run) or (policy is not None and policy.round > 0):
        return
    folder = cold_start_folder(run.folder)
    is_done = read_manifest(folder) is not None
    if policy is None or not is_done or saved_policy(folder / "model", 0).id != policy.id:
        raise ConfigError(
            f"the cold start of run {run.name!r} is not done yet; `regroup run` does the cold start first"
        )


def cold_start(run: Run, reward_models: Mapping[str, RewardModelSource]) -> None:
    """Make sure that the given policy is fine-tuned, and that `run.json` names what came out as given and initial policy."""
    stage_dir, before = cold_start_folder(run.folder), as_given(run)
    spec = ColdStartSpec(
        config=run.config,
        round=0,
        policy=before,
        initial_policy=before,
        problems=str(run.problems(0, "train")),
        held_out=[str(run.problems(0, split)) for split in MEASURED],
        reward_models=dict(reward_models),
    )

    def trained() -> Policy:
        return saved_policy(stage_dir / "model", 0)

    run_stage(
        run,
        spec,
        stage_dir,
        launched(run.config.launcher, "cold_start", body, run.folder),
        datasets=_datasets(run, spec),
        outcome=lambda: _outcome(run, trained(), before),
        tags={"regroup.parent_policy": before.id},
    )
    made = trained()
    named = {"given_policy": made, "initial_policy": made, "before_cold_start": before}
    if (file := run.file.model_copy(update=named)) != run.file:
        write_run(run.workspace, file)
        run.console.say(f"cold start: {cold_start_told(run.folder)}")


def _datasets(run: Run, spec: ColdStartSpec) -> list[DatasetFact]:
    demonstrations = spec.cold.demonstrations
    if demonstrations is None:
        return [dataset_fact(run, Path(spec.problems), "training", "train")]
    path = demonstrations.path
    is_file = isinstance(path, str) and Path(path).is_file()
    return [dataset_fact(run, Path(str(path)), "training", "demonstrations")] if is_file else []


def _outcome(run: Run, policy: Policy, before: Policy) -> Outcome:
    tags = {"regroup.policy_id": policy.id, "regroup.parent_policy": before.id}
    return Outcome(model=ModelFact(name=run.policy_model, folder="model", alias="champion", tags=tags), tags=tags)


class ColdStartSpec(PolicySpec):
    """The policy that is fine-tuned, and what it learns from: the file of demonstrations, or problems and rewards."""

    LEAST: ClassVar[str] = "cold_start.own_samples.min_score"

    held_out: list[str]
    """files of the problems that no demonstration may ask"""

    @property
    def cold(self) -> ColdStartConfig:
        assert self.config.cold_start is not None, "the flow looked"
        return self.config.cold_start

    @property
    def method(self) -> BestOfNMethod:
        own = self.cold.own_samples
        return BestOfNMethod(mode="offline", epochs=self.cold.epochs, min_score=None if own is None else own.min_score)

    @property
    def grpo(self) -> GrpoConfig:
        own = self.cold.own_samples
        group_size = 1 if own is None else own.group_size
        sizes = {"group_size": group_size, "batch_size": group_size * self.cold.batch_size}
        return self.config.grpo_config.model_copy(update={"learning_rate": self.cold.learning_rate, **sizes})

    @property
    def watch(self) -> list[WatchRule]:
        """None: rules are made for the training that follows."""
        return []

    def num_asked(self, num_problems: int) -> int:
        assert self.cold.own_samples is not None, "demonstrations ask nothing"
        return min(self.cold.own_samples.num_problems, num_problems)

    def scorers(self) -> dict[str, str]:
        return {} if self.cold.own_samples is None else reward_ids(self.config.rewards)

    def scored_with(self) -> dict[str, str]:
        return {} if self.cold.own_samples is None else scoring_packages(self.config.rewards)

    def reads(self) -> tuple[str, ...]:
        of_problems = ("problems.template", "problems.system", "problems.max_prompt_length", "problems.overlap")
        of_kind = of_problems if self.cold.own_samples is None else ("rewards", "combination")
        return ("seed", "cold_start", "grpo_config", *of_kind, *TEMPLATE)

    def inputs(self) -> dict[str, str]:
        demonstrations = self.cold.demonstrations
        if demonstrations is None:
            asked = {"problems": digest(Path(self.problems))}
            return {"policy": self.policy.id} | asked | model_ids(self.reward_models) | self.scorers()
        held_out = {f"held_out/{Path(path).stem}": digest(Path(path)) for path in self.held_out}
        data = demonstrations_digest(demonstrations)
        return {"policy": self.policy.id} | held_out | ({} if data is None else {"demonstrations": data})


def body(spec: ColdStartSpec, out_dir: Path, context: Context = ALONE) -> None:
    """Fine-tune the policy.

    Writes model/, the journal, result.json (number of updates, tokens), and with LoRA adapter/; of own samples also
    completions.jsonl and scores.jsonl.

    Raises:
        ConfigError: the demonstrations cannot be used.
        StageStopped: it was asked to stop at a step boundary.
        TrainingDiverged: loss or gradient was not finite; nothing is saved.
    """
    from tasks.stages.cold_start.learning import learn  # with TRL, which takes long to load

    learn(spec, out_dir, context)
