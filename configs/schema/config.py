"""The configuration of a run: a tree of frozen pydantic models with `Config` at the root.

configs/reader.py reads it from YAML. The larger blocks have files of their own: `policy`, `problems`, `rewards`,
`reward_models` and `grpo`. docs/configuration.md is generated from the field descriptions. The configuration never
holds a secret, only the name of the environment variable that does.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from configs.records import TemplateSettings
from configs.schema.block import Block, Name, PositiveInt, Temperature, TopK, TopP
from configs.schema.comparing.budget import BudgetConfig
from configs.schema.evaluation import EvaluationConfig, PromotionConfig
from configs.schema.grpo import GrpoConfig
from configs.schema.measuring.retention import check_retention
from configs.schema.methods.check import check_method
from configs.schema.methods.cold_start import ColdStartConfig, check_cold_start
from configs.schema.methods.method import GrpoMethod, Method, with_settings_of_method
from configs.schema.operational import LATER, OPERATIONAL
from configs.schema.policy import PolicyConfig
from configs.schema.problems import (
    BandCurriculum,
    Curriculum,
    NoCurriculum,
    PredictedCurriculum,
    ProblemsConfig,
    ThresholdCurriculum,
)
from configs.schema.reward_models import (
    JudgeLabeler,
    OutcomeLabeler,
    PeopleLabeler,
    RewardModel,
    TrainedRewardModel,
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
from configs.schema.run import AlertConfig, LauncherConfig, RunConfig
from configs.schema.scopes import check_sources, check_steps, scope_of, source_names

OF_THE_CHECKER = ("greedy_accuracy", "pass_at_", "maj_at_", "at_fault_share")
"""beginnings of the metrics that need a reward which decides what is right"""


class RegenerationConfig(Block):
    """Responses sampled at the end of each round, from which the next round's reward models learn."""

    num_problems: PositiveInt = Field(128, description="problems of each round's shard, disjoint from all other splits")
    group_size: Annotated[int, Field(ge=2)] = Field(8, description="completions per problem")
    temperature: Temperature = 0.8
    top_p: TopP = 1.0
    top_k: TopK = 0


class WatchRule(Block):
    """A rule that watches one step metric of the policy's training and acts when it is out of bounds."""

    metric: str = Field(description="a key of docs/metrics.md, for instance `policy/entropy`")
    above: float | None = Field(None, description="upper bound: a higher value is out of bounds")
    below: float | None = Field(None, description="lower bound: a lower value is out of bounds")
    jump_over: PositiveInt | None = Field(
        None,
        description="compare the bound with the metric minus its mean over this many previous measurements, instead "
        "of the metric itself",
    )
    patience: PositiveInt = Field(
        3, description="number of consecutive measurements out of bounds that triggers the action"
    )
    action: Literal["warn", "stop", "roll_back"] = Field(
        "warn",
        description="warn: only report it; stop: end the training with the current policy; roll_back: end it with the "
        "newest checkpoint from before the policy whose responses were the first out of bounds, which needs "
        "`grpo_config.save_steps` >= `patience` (with `grpo_config.vllm.max_staleness` one more)",
    )
    extra_rounds: Annotated[int, Field(ge=0)] = Field(
        0,
        description="most rounds that this rule may add to `rounds`. One is added when the rule ends the training of "
        "the last round, so that the reward models can be retrained on the responses of that policy",
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
    """Tracking in MLflow, at `MLFLOW_TRACKING_URI`; by default `sqlite:///mlflow.db` in the current folder."""

    experiment: str = Field("regroup", min_length=1, description="name of the MLflow experiment")


class Config(Block):
    """The configuration of a run."""

    run: Annotated[RunConfig, OPERATIONAL] = Field(
        RunConfig(), description="name and date of the run, and what stays on disk"
    )
    seed: int = Field(
        0,
        ge=0,
        description="seed of every random draw except the generation of reasoning-gym data, which has a seed of its "
        "own",
    )
    rounds: int = Field(2, ge=1, description="rounds after round 0, the baseline, in which nothing is trained")
    policy: PolicyConfig
    cold_start: Annotated[ColdStartConfig | None, LATER] = Field(
        None, description="fine-tuning of the given policy before round 0 measures it; default: none"
    )
    problems: ProblemsConfig
    rewards: list[RewardConfig] = Field(min_length=1, description="the objectives of training")
    combination: CombinationConfig = CombinationConfig()
    reward_models: dict[Name, RewardModel] = Field({}, description="reward models by name")
    method: Annotated[Method, LATER] = Field(GrpoMethod(), description="how a round trains its policy")
    grpo_config: GrpoConfig = GrpoConfig()
    budget: Annotated[BudgetConfig | None, LATER] = Field(
        None, description="the most that a round's training of the policy spends; default: no bound"
    )
    curriculum: Curriculum = Field(NoCurriculum(), description="which training problems are asked when")
    evaluation: EvaluationConfig = EvaluationConfig()
    promotion: PromotionConfig = PromotionConfig()
    regeneration: RegenerationConfig = RegenerationConfig()
    watch: list[WatchRule] = Field(
        DEFAULT_WATCH, description="rules that watch the metrics of training; your list replaces the default"
    )
    tracking: Annotated[TrackingConfig, OPERATIONAL] = TrackingConfig()
    launcher: Annotated[LauncherConfig, OPERATIONAL] = LauncherConfig()
    alerts: Annotated[list[AlertConfig], OPERATIONAL] = Field(
        [], description="receivers of what happens: a refused challenger, a failed run, and so on"
    )
    keep_checkpoints: Annotated[PositiveInt, OPERATIONAL] = Field(
        2, description="checkpoints that an unfinished stage keeps; a finished one keeps none"
    )

    @model_validator(mode="before")
    @classmethod
    def _method_needs(cls, given: Any) -> Any:
        return with_settings_of_method(given)

    @model_validator(mode="after")
    def _names_fit(self) -> "Config":
        names = [reward.name for reward in [*self.rewards, *self.evaluation.rewards]]
        _refuse_doubles(names)
        self._check_model_references()
        self._check_labelers()
        self._check_early_stop()
        self._check_scopes()
        self._check_checker(names)
        self._check_pass_rates()
        self._check_ranks()
        self._check_weighing()
        self._check_processes()
        self._check_roll_back()
        self._check_people()
        self._check_per_step()
        check_method(self)
        check_cold_start(self)
        self._check_start()
        check_retention(self.evaluation.retention, self.promotion.retention, self.grpo_config)
        if self.budget is not None:
            self.budget.refuse_less_than_a_step(self.grpo_config)
        return self

    def _check_start(self) -> None:
        lora = self.grpo_config.lora
        if self.policy.start_from == "given" and lora is not None and lora.between_rounds == "carry_on":
            raise ValueError(
                "policy.start_from=given trains each round anew, so that grpo_config.lora.between_rounds=carry_on has no adapter to go on "
                "with; use between_rounds=merge, which trains a new adapter in each round, or start_from=champion"
            )

    def _check_people(self) -> None:
        people, shown = self.promotion.people, self.evaluation.num_examples
        if people is not None and people.num_problems > shown:
            raise ValueError(
                f"promotion.people.num_problems={people.num_problems} is more than the evaluation.num_examples={shown} problems "
                "whose texts are kept; raise evaluation.num_examples"
            )

    def _check_roll_back(self) -> None:
        rules = [rule for rule in self.watch if rule.action == "roll_back"]
        save_steps, vllm = self.grpo_config.save_steps, self.grpo_config.vllm
        staleness = vllm.max_staleness if vllm is not None else 0
        if late := [rule.metric for rule in rules if rule.patience + staleness > save_steps]:
            raise ValueError(
                f"watch rules on {late} roll back to a checkpoint that is gone when their patience runs out: "
                f"grpo_config.save_steps={save_steps} must be at least their patience"
                + (f" and the {staleness} of grpo_config.vllm.max_staleness" if staleness else "")
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
        """Names of the training rewards with `reduce: per_step`; at most one."""
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
        ranks, grpo = self.launcher.num_processes, self.grpo_config
        num_prompts = grpo.batch_size // grpo.group_size
        if ranks > num_prompts:
            raise ValueError(
                f"launcher.num_processes={ranks} ranks share the {num_prompts} prompts of a step (grpo_config.batch_size / group_size), "
                f"so {ranks - num_prompts} would have none; use at most {num_prompts}, or a larger batch_size"
            )
        if self.launcher.shard and grpo.vllm is None:
            raise ValueError(
                "launcher.shard=true leaves no rank with a whole model to sample from: let a server write the responses "
                "(grpo_config.vllm), or use shard=false"
            )

    def _check_scopes(self) -> None:
        check_steps(self.rewards, self.evaluation.rewards)
        if (trained := source_names(self.problems)) is not None:
            check_sources(self.rewards, self.evaluation.rewards, trained)

    def _check_checker(self, names: list[str]) -> None:
        if missing := [name for name in _named(self.evaluation.checker) if name not in names]:
            raise ValueError(f"evaluation.checker={missing[0]!r} is no reward; rewards are {names}")
        if not self.checkers and self.promotion.metric.startswith(OF_THE_CHECKER):
            raise ValueError(
                "evaluation.checker is needed where no reward has kind outcome; name the reward that decides, or set "
                f"promotion.metric to what a reward measures, such as sampled/{names[0]}"
            )

    def _check_pass_rates(self) -> None:
        curriculum = self.curriculum
        measures = isinstance(curriculum, BandCurriculum | PredictedCurriculum) or (
            isinstance(curriculum, ThresholdCurriculum) and curriculum.difficulty == "policy"
        )
        trained = {reward.name for reward in self.rewards}
        missing = [name for name in self.checkers or ["(none)"] if name not in trained]
        if measures and missing:
            raise ValueError(
                f"curriculum.kind={curriculum.kind} takes pass rates from training, but the checker {missing[0]!r} is "
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
            self._check_labels_somewhere(name, field, labeler)

    def _check_labels_somewhere(self, name: str, field: str, labeler: object) -> None:
        """Refuse a labeler whose reward scores none of the sources that the reward model is used on."""
        if not isinstance(labeler, OutcomeLabeler | JudgeLabeler):
            return
        labelled = scope_of([reward for reward in self.rewards if reward.name == labeler.reward])
        used = self.sources_of_model(name)
        if labelled is not None and used is not None and not labelled & used:
            raise ValueError(
                f"{field}.reward={labeler.reward!r} scores the sources {sorted(labelled)} and the reward model {sorted(used)}: "
                "no pair could be made; let them share a source"
            )

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
        """Name of the run, which `load_config` sets if the file does not."""
        assert self.run.name is not None, "load_config sets run.name"
        return self.run.name

    @property
    def checkers(self) -> list[str]:
        """Names of the rewards that decide whether a response is right: of each problem, the first that scores it."""
        return [reward.name for reward in self._deciding()]

    def checker_of(self, source: str) -> str | None:
        """Name of the reward that decides on the problems of a source; None: nothing says what is right there."""
        return next((reward.name for reward in self._deciding() if reward.applies_to(source)), None)

    def _deciding(self) -> list[RewardConfig]:
        every = [*self.rewards, *self.evaluation.rewards]
        named = {reward.name: reward for reward in every}
        chosen = [named[name] for name in _named(self.evaluation.checker)]
        chosen = chosen or [reward for reward in every if isinstance(reward, OutcomeRewardConfig)]
        last = next((i for i, reward in enumerate(chosen) if reward.sources is None), len(chosen))
        return chosen[: last + 1]  # none after one that scores all sources

    def sources_of_model(self, name: str) -> set[str] | None:
        """The sources that rewards use the reward model on, and that its pairs come from; None: all."""
        every = [*self.rewards, *self.evaluation.rewards]
        return scope_of([r for r in every if isinstance(r, ModelRewardConfig) and r.model == name])

    @property
    def max_rounds(self) -> int:
        """`rounds` plus the most rounds that watch rules may add."""
        return self.rounds + max((rule.extra_rounds for rule in self.watch), default=0)

    @property
    def template_settings(self) -> TemplateSettings:
        """What the chat templates of policy and reward models are given."""
        asked, date = self.problems, self.run.date
        return TemplateSettings(variables=asked.template_variables, join_system=asked.join_system, date=date)

    @property
    def trained_reward_models(self) -> dict[str, TrainedRewardModel]:
        return {name: model for name, model in self.reward_models.items() if isinstance(model, TrainedRewardModel)}

    @property
    def people_label(self) -> bool:
        return any(isinstance(model.labeler, PeopleLabeler) for model in self.trained_reward_models.values())


def _named(checker: str | list[str] | None) -> list[str]:
    return [checker] if isinstance(checker, str) else checker or []


def _refuse_doubles(names: list[str]) -> None:
    if doubles := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"reward names {doubles} stand more than once; names are unique")
