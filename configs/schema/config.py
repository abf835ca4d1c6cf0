"""The configuration, a tree of frozen pydantic models with `Config` on top; configs/reader.py reads it from YAML.

The larger blocks stand in files of their own: `policy`, `problems`, `rewards`, `reward_models` and `grpo`. Each
field's description is the reference in docs/configuration.md. Secrets never stand here, only the name of the environment
variable that holds one.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from configs.schema.block import Block, Name, PositiveInt, Temperature, TopK, TopP
from configs.schema.grpo import GrpoConfig
from configs.schema.operational import OPERATIONAL
from configs.schema.policy import PolicyConfig
from configs.schema.problems import BandCurriculum, Curriculum, NoCurriculum, ProblemsConfig, ThresholdCurriculum
from configs.schema.reward_models import (
    JudgeLabeler,
    OutcomeLabeler,
    PeopleLabeler,
    RewardModel,
    TrainedRewardModel,
    WaitMinutes,
)
from configs.schema.rewards import (
    CombinationConfig,
    JudgeRewardConfig,
    ModelRewardConfig,
    OutcomeRewardConfig,
    ProcessRewardConfig,
    PythonRewardConfig,
    RewardConfig,
)


class EvaluationConfig(Block):
    """How a policy is measured on dev and test."""

    checker: Name | None = Field(
        None, description="reward that says right or wrong (right: value >= 1); default: the first outcome reward"
    )
    rewards: list[RewardConfig] = Field([], description="further rewards that only measure")
    num_samples: PositiveInt = Field(4, description="samples per problem for pass@k and maj@k")
    temperature: Temperature = 0.8
    top_p: TopP = 1.0
    top_k: TopK = 0
    bootstrap_draws: PositiveInt = Field(2000, description="draws for the 95% intervals")
    num_kl_problems: PositiveInt = Field(
        64, description="problems of each split, the first ones, on which the KL from the initial policy is measured"
    )
    num_examples: PositiveInt = Field(8, description="problems whose texts are shown in the report")


class PeopleConfig(Block):
    """People compare champion and challenger blind, side by side, in random order, on problems of dev."""

    num_problems: PositiveInt = Field(
        8,
        description="problems asked about, of the first `evaluation.num_examples`; those where both say the same are left out",
    )
    rule: Literal["report", "not_worse", "better"] = Field(
        "report",
        description="the challenger's win rate is shown only; the upper bound of its 95% interval must not be under 0.5; or the "
        "lower bound must be over 0.5",
    )
    wait_minutes: WaitMinutes = Field(
        0,
        description="how long promotion waits for answers, from when it asked; then it decides on those there are",
    )


class PromotionConfig(Block):
    """When a challenger becomes champion; decided on dev."""

    rule: Literal["better", "not_worse", "always"] = Field(
        "better",
        description="lower bound of the paired gain over 0; lower bound over -tolerance; or unconditionally",
    )
    metric: str = Field("greedy_accuracy", description="column of results.jsonl that is compared")
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = Field(
        0.9, description="of the two-sided paired bootstrap interval"
    )
    tolerance: Annotated[float, Field(ge=0)] = Field(0.02, description="loss that `not_worse` forgives")
    people: PeopleConfig | None = Field(None, description="people's word beside the rule; default: they are not asked")


class RegenerationConfig(Block):
    """What the next round's reward models learn from."""

    num_problems: PositiveInt = Field(128, description="problems on each round's shard, disjoint from all other splits")
    group_size: Annotated[int, Field(ge=2)] = Field(8, description="completions per problem")
    temperature: Temperature = 0.8
    top_p: TopP = 1.0
    top_k: TopK = 0


class WatchRule(Block):
    """Looks at one step metric of training."""

    metric: str = Field(description="a key of docs/metrics.md, for instance `policy/entropy`")
    above: float | None = Field(None, description="bound that the metric should not exceed")
    below: float | None = Field(None, description="bound that the metric should not fall under")
    jump_over: PositiveInt | None = Field(
        None, description="compare the metric's distance from its mean over so many measurements before, not itself"
    )
    patience: PositiveInt = Field(3, description="measurements in a row out of bounds before the action")
    action: Literal["warn", "stop", "roll_back"] = Field(
        "warn",
        description="say so; end the stage with the policy as it is; or end it with the newest checkpoint from before the metric "
        "went out of bounds, which needs `grpo_config.save_steps`",
    )
    extra_rounds: Annotated[int, Field(ge=0)] = Field(
        0,
        description="rounds that a run may get beyond `rounds`: one after each last round whose training this rule ended, to retrain the "
        "reward models on what that policy writes",
    )

    @model_validator(mode="after")
    def _ends_what_it_extends(self) -> "WatchRule":
        if self.extra_rounds and self.action == "warn":
            raise ValueError(
                f"watch rule on {self.metric}: extra_rounds={self.extra_rounds} needs action stop or roll_back, not warn"
            )
        return self

    @model_validator(mode="after")
    def _one_bound(self) -> "WatchRule":
        if (self.above is None) == (self.below is None):
            raise ValueError(f"watch rule on {self.metric} needs exactly one of `above` and `below`")
        return self


DEFAULT_WATCH = [
    WatchRule(metric="policy/entropy", below=0.02, patience=5, action="warn"),
    WatchRule(metric="policy/kl_initial", above=2.0, patience=2, action="warn"),
]


class TrackingConfig(Block):
    """MLflow. `MLFLOW_TRACKING_URI` says where; by default `sqlite:///mlflow.db` in the current folder."""

    experiment: str = Field("regroup", min_length=1, description="name of the MLflow experiment")


class LauncherConfig(Block):
    """Where a policy and a reward model are trained; the result is the same up to rounding."""

    kind: Literal["inline", "process", "accelerate"] = Field(
        "inline",
        description="in the flow's own process; in a child process, whose memory is free afterwards; or as several, which share "
        "each batch of the policy's training",
    )
    num_processes: PositiveInt = Field(
        1, description="of kind accelerate; the policy's training alone takes more than one"
    )
    config_file: str | None = Field(
        None, description="of `accelerate launch`, for kind accelerate; default: torchrun on this machine"
    )

    @model_validator(mode="after")
    def _fits_kind(self) -> "LauncherConfig":
        if self.kind != "accelerate" and (self.num_processes > 1 or self.config_file is not None):
            raise ValueError(
                f"num_processes={self.num_processes} and config_file={self.config_file!r} need kind accelerate, not {self.kind}"
            )
        return self


class RunConfig(Block):
    """One Regroup run in the workspace."""

    name: Name | None = Field(None, description="default: the configuration file's name")


class Config(Block):
    """A whole run."""

    run: Annotated[RunConfig, OPERATIONAL] = Field(RunConfig(), description="name of the run")
    seed: int = Field(0, ge=0, description="of every random draw but the data's")
    rounds: int = Field(2, ge=1, description="rounds after the baseline, round 0")
    policy: PolicyConfig
    problems: ProblemsConfig
    rewards: list[RewardConfig] = Field(min_length=1, description="the objectives")
    combination: CombinationConfig = CombinationConfig()
    reward_models: dict[Name, RewardModel] = Field({}, description="reward models by name")
    grpo_config: GrpoConfig = GrpoConfig()
    curriculum: Curriculum = Field(NoCurriculum(), description="which problems come when")
    evaluation: EvaluationConfig = EvaluationConfig()
    promotion: PromotionConfig = PromotionConfig()
    regeneration: RegenerationConfig = RegenerationConfig()
    watch: list[WatchRule] = Field(
        DEFAULT_WATCH, description="rules that look at training; a list of yours replaces the default"
    )
    tracking: Annotated[TrackingConfig, OPERATIONAL] = TrackingConfig()
    launcher: Annotated[LauncherConfig, OPERATIONAL] = LauncherConfig()
    keep_checkpoints: Annotated[PositiveInt, OPERATIONAL] = Field(
        2, description="checkpoints that an unfinished stage keeps; a finished one keeps none"
    )

    @model_validator(mode="after")
    def _names_fit(self) -> "Config":
        names = [reward.name for reward in [*self.rewards, *self.evaluation.rewards]]
        _refuse_doubles(names)
        self._check_model_references()
        self._check_labelers()
        self._check_early_stop()
        self._check_checker(names)
        self._check_pass_rates()
        self._check_ranks()
        self._check_weighing()
        self._check_processes()
        self._check_roll_back()
        self._check_people()
        self._check_per_step()
        return self

    def _check_people(self) -> None:
        people, shown = self.promotion.people, self.evaluation.num_examples
        if people is not None and people.num_problems > shown:
            raise ValueError(
                f"promotion.people.num_problems={people.num_problems} is more than the evaluation.num_examples={shown} problems "
                "whose texts are kept; raise evaluation.num_examples"
            )

    def _check_roll_back(self) -> None:
        rules = [rule for rule in self.watch if rule.action == "roll_back"]
        save_steps = self.grpo_config.save_steps
        if late := [rule.metric for rule in rules if rule.patience > save_steps]:
            raise ValueError(
                f"watch rules on {late} roll back to a checkpoint that is gone when their patience runs out: "
                f"grpo_config.save_steps={save_steps} must be at least their patience"
            )

    def _check_processes(self) -> None:
        for rewards in (self.rewards, self.evaluation.rewards):
            names = {r.name for r in [*self.rewards, *rewards] if not isinstance(r, ProcessRewardConfig)}
            for reward in rewards:
                if isinstance(reward, ProcessRewardConfig) and reward.checked_by not in {"arithmetic", *names}:
                    raise ValueError(
                        f"reward {reward.name!r}: checked_by={reward.checked_by!r} is neither arithmetic nor another reward; "
                        f"rewards are {sorted(names)}"
                    )

    def _check_per_step(self) -> None:
        names = self.per_step_rewards
        if len(names) > 1:
            raise ValueError(f"rewards {names} are all kept per step; one can be, so reduce the others by mean or min")
        if names and self.grpo_config.loss == "gspo":
            raise ValueError(
                f"reward {names[0]!r} gives each token an advantage of its own, but grpo_config.loss=gspo has one ratio a response; "
                "use another loss, or reduce by mean or min"
            )
        if floored := [r.name for r in self.rewards if r.name in names and r.floor is not None]:
            raise ValueError(
                f"reward {floored[0]!r} is kept per step and part of no sum that its floor could cap; drop it"
            )

    @property
    def per_step_rewards(self) -> list[str]:
        """Names of the training rewards whose steps have advantages of their own; one at most."""
        return [r.name for r in self.rewards if isinstance(r, ProcessRewardConfig) and r.reduce == "per_step"]

    def _check_weighing(self) -> None:
        floored = [reward.name for reward in self.rewards if reward.floor is not None]
        if floored and self.combination.order != "sum_then_normalize":
            raise ValueError(
                f"floor of {floored} caps a sum, which order={self.combination.order} never forms; "
                "use order=sum_then_normalize"
            )
        idle = [r.name for r in self.evaluation.rewards if r.floor is not None or r.schedule is not None]
        if idle:
            raise ValueError(
                f"evaluation.rewards {idle} only measure: schedule and floor have no meaning there; drop them"
            )

    def _check_ranks(self) -> None:
        if self.grpo_config.vllm is not None and self.launcher.num_processes > 1:
            raise ValueError(
                f"grpo_config.vllm takes weights from one process, not {self.launcher.num_processes}; "
                "use launcher.num_processes=1"
            )

    def _check_checker(self, names: list[str]) -> None:
        if self.evaluation.checker is not None and self.evaluation.checker not in names:
            raise ValueError(f"evaluation.checker={self.evaluation.checker!r} is no reward; rewards are {names}")
        if self.evaluation.checker is None and not any(isinstance(r, OutcomeRewardConfig) for r in self.rewards):
            raise ValueError(
                "evaluation.checker is needed where no reward has kind outcome; name the reward that decides"
            )

    def _check_pass_rates(self) -> None:
        curriculum = self.curriculum
        measures = isinstance(curriculum, BandCurriculum) or (
            isinstance(curriculum, ThresholdCurriculum) and curriculum.difficulty == "policy"
        )
        if measures and self.checker not in {reward.name for reward in self.rewards}:
            raise ValueError(
                f"curriculum.kind={curriculum.kind} takes pass rates from training, but the checker {self.checker!r} is "
                "none of `rewards`; add it there (weight 0 measures without training on it)"
            )

    def _check_model_references(self) -> None:
        used = {r.model for r in [*self.rewards, *self.evaluation.rewards] if isinstance(r, ModelRewardConfig)}
        if missing := sorted(used - set(self.reward_models)):
            raise ValueError(
                f"rewards name reward models {missing}, but reward_models has {sorted(self.reward_models)}"
            )
        if idle := sorted(set(self.reward_models) - used):
            raise ValueError(
                f"reward_models {idle} are used by no reward; add a reward of kind reward_model, or drop them"
            )

    def _check_labelers(self) -> None:
        outcomes = [r.name for r in self.rewards if isinstance(r, OutcomeRewardConfig)]
        judges = [r.name for r in self.rewards if isinstance(r, JudgeRewardConfig)]
        for name, model in self.trained_reward_models.items():
            field, labeler = f"reward_models.{name}.labeler", model.automatic_labeler
            if isinstance(model.labeler, PeopleLabeler):
                field += ".otherwise"
            if isinstance(labeler, OutcomeLabeler) and labeler.reward not in outcomes:
                raise ValueError(
                    f"{field}.reward={labeler.reward!r} is no outcome reward; outcome rewards are {outcomes}"
                )
            if isinstance(labeler, JudgeLabeler) and labeler.reward not in judges:
                raise ValueError(f"{field}.reward={labeler.reward!r} is no judge; judges are {judges}")

    def _check_early_stop(self) -> None:
        low_score = self.grpo_config.early_stop.low_score
        names = [r.name for r in self.rewards if isinstance(r, ModelRewardConfig | PythonRewardConfig)]
        if low_score is not None and low_score.reward not in names:
            raise ValueError(
                f"grpo_config.early_stop.low_score.reward={low_score.reward!r} is no reward that can score a text before "
                f"its end; those of kind reward_model or python are {names}"
            )

    @property
    def run_name(self) -> str:
        """Name of the run; `load_config` sets it where the file does not."""
        assert self.run.name is not None, "load_config sets run.name"
        return self.run.name

    @property
    def checker(self) -> str:
        """Name of the reward that says right or wrong."""
        if self.evaluation.checker is not None:
            return self.evaluation.checker
        return next(reward.name for reward in self.rewards if isinstance(reward, OutcomeRewardConfig))

    @property
    def max_rounds(self) -> int:
        """`rounds`, and those that watch rules may add."""
        return self.rounds + max((rule.extra_rounds for rule in self.watch), default=0)

    @property
    def trained_reward_models(self) -> dict[str, TrainedRewardModel]:
        return {name: model for name, model in self.reward_models.items() if isinstance(model, TrainedRewardModel)}


def _refuse_doubles(names: list[str]) -> None:
    if doubles := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"reward names {doubles} stand more than once; names are unique")
