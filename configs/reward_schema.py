"""The blocks `rewards`, `combination` and `reward_models`: the objectives, their one advantage, the models behind them."""

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from configs.block import Block, Name, PositiveFloat, PositiveInt, SaveSteps, Share

# ---- rewards --------------------------------------------------------------------------------------------------------


class RewardBlock(Block):
    name: Name = Field(description="the objective's name in metrics and reports")
    weight: Annotated[float, Field(allow_inf_nan=False)] = Field(
        1.0, description="weight in the combination; 0 measures without training on it"
    )


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
    pattern: str | None = Field(
        None, description="regular expression that must be found in the text (dot matches newlines)"
    )
    tags: list[Name] = Field(
        [], description="the text must be these tags, each once and in this order, and nothing else: `[think, answer]`"
    )

    @field_validator("pattern")
    @classmethod
    def _pattern_compiles(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"pattern={pattern!r} is no regular expression: {error}") from error
        return pattern

    @model_validator(mode="after")
    def _asks_for_something(self) -> "FormatReward":
        if self.pattern is None and not self.tags:
            raise ValueError("neither pattern nor tags is given; say what form the text must have")
        return self


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


class RepetitionReward(RewardBlock):
    """1 where nothing is repeated, falling in a straight line to 0 where every n-gram of tokens has stood before."""

    kind: Literal["repetition"] = "repetition"
    ngram: PositiveInt = Field(4, description="tokens in a row that count as one")
    free: Annotated[float, Field(ge=0, lt=1)] = Field(0.1, description="share of repeated n-grams that costs nothing")


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
    OutcomeReward | FormatReward | LengthReward | RepetitionReward | ModelReward | PythonReward,
    Field(discriminator="kind"),
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
