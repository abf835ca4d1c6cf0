"""The blocks `rewards` and `combination`: the objectives, and how they become one advantage."""

import re
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from configs.schema.block import Block, Name, PositiveFloat, PositiveInt, Share
from configs.schema.operational import OPERATIONAL


class WeightSchedule(Block):
    """What a weight is multiplied by over time."""

    over: Literal["rounds", "steps"] = Field(description="rounds of the run, or steps of each round's training")
    points: list[tuple[PositiveInt, Annotated[float, Field(ge=0, allow_inf_nan=False)]]] = Field(
        min_length=2,
        description="(round or step, factor), straight lines between, constant outside: `[[1, 0.0], [3, 1.0]]`",
    )

    @model_validator(mode="after")
    def _goes_on(self) -> "WeightSchedule":
        places = [place for place, _ in self.points]
        if any(later <= earlier for earlier, later in pairwise(places)):
            raise ValueError(f"points at {places} do not go up; give each {self.over[:-1]} once, in order")
        return self


class Floor(Block):
    """An objective that may not be traded away: a response under it is worth little, whatever the others say."""

    below: Annotated[float, Field(allow_inf_nan=False)] = Field(description="a value under this is under the floor")
    cap: Annotated[float, Field(allow_inf_nan=False)] = Field(
        0.0, description="the most that the weighted sum of a response under the floor can be"
    )


class RewardBlock(Block):
    name: Name = Field(description="the objective's name in metrics and reports")
    weight: Annotated[float, Field(allow_inf_nan=False)] = Field(
        1.0, description="weight in the combination; 0 measures without training on it"
    )
    schedule: WeightSchedule | None = Field(None, description="changes the weight over time; default: it stays")
    floor: Floor | None = Field(None, description="caps the sum where this objective is low; default: none")


class OutcomeRewardConfig(RewardBlock):
    """1 where the final answer is right, else 0 (a reasoning-gym scorer may give parts)."""

    kind: Literal["outcome"] = "outcome"
    extract: Literal["last_number", "tag", "whole", "final", "boxed", "hash", "answer_is", "json"] = Field(
        "last_number",
        description="where the answer stands: the last number, the last answer tag, the whole text; the last `\\boxed{}`, what follows the "
        "last `####`, what follows `the answer is`, a field of the last JSON object, or `final`: whichever of these is there",
    )
    strict: bool = Field(
        False,
        description="`last_number`, `tag` and `whole` also refuse what is denied, withdrawn, one of several, or a placeholder; the other "
        "places always do",
    )
    tag: Name = Field("answer", description="name of the tag for `extract: tag`")
    field: Name = Field("answer", description="name of the field for `extract: json`")
    checker: Literal["exact", "numeric", "choice", "regex", "reasoning_gym", "math_verify"] = Field(
        "exact",
        description="exact match after normalising; a number in any notation within `tolerance`; the letter or the text of one of the "
        "problem's `choices`; `pattern`; reasoning-gym's scorer; or math-verify",
    )
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        1e-6,
        description="relative, of `checker: numeric`; the default is for rounding, and whole numbers have to be equal under it",
    )
    pattern: str | None = Field(
        None, description="regular expression that the whole answer must match, of `checker: regex`"
    )
    choices: str = Field(
        "choices", description="column with the choices, `{A: ..., B: ...}` or a list, of `checker: choice`"
    )
    timeout_s: PositiveFloat = Field(5.0, description="limit for one check; what takes longer is unscored")

    @field_validator("pattern")
    @classmethod
    def _pattern_compiles(cls, pattern: str | None) -> str | None:
        return compiled_or_refused(pattern)

    @model_validator(mode="after")
    def _pattern_fits_checker(self) -> "OutcomeRewardConfig":
        if (self.checker == "regex") != (self.pattern is not None):
            raise ValueError(
                f"checker={self.checker} and pattern={self.pattern!r} do not fit; regex alone takes a pattern"
            )
        return self


def compiled_or_refused(pattern: str | None) -> str | None:
    """The pattern; raises ValueError where it is no regular expression."""
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise ValueError(f"pattern={pattern!r} is no regular expression: {error}") from error
    return pattern


class FormatRewardConfig(RewardBlock):
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
        return compiled_or_refused(pattern)

    @model_validator(mode="after")
    def _asks_for_something(self) -> "FormatRewardConfig":
        if self.pattern is None and not self.tags:
            raise ValueError("neither pattern nor tags is given; say what form the text must have")
        return self


class LengthRewardConfig(RewardBlock):
    """1 from `shortest` to `target` tokens, falling in straight lines to 0 at `limit` and at no tokens."""

    kind: Literal["length"] = "length"
    target: PositiveInt = Field(description="tokens that are free")
    limit: PositiveInt = Field(description="tokens at which nothing is left; more than `target`")
    shortest: int = Field(
        0,
        ge=0,
        description="tokens under which it falls too, so that nothing is gained by saying nothing; default: off",
    )

    @model_validator(mode="after")
    def _limit_over_target(self) -> "LengthRewardConfig":
        if self.limit <= self.target:
            raise ValueError(f"limit={self.limit} is not over target={self.target}; raise limit")
        if self.shortest > self.target:
            raise ValueError(f"shortest={self.shortest} is over target={self.target}; lower shortest")
        return self


class RepetitionRewardConfig(RewardBlock):
    """1 where nothing is repeated, falling in a straight line to 0 where every n-gram of tokens has stood before."""

    kind: Literal["repetition"] = "repetition"
    ngram: PositiveInt = Field(4, description="tokens in a row that count as one")
    free: Annotated[float, Field(ge=0, lt=1)] = Field(0.1, description="share of repeated n-grams that costs nothing")


class ProcessRewardConfig(RewardBlock):
    """The steps of the reasoning, each checked by itself."""

    kind: Literal["process"] = "process"
    checked_by: Name = Field(
        "arithmetic",
        description="`arithmetic` verifies the equations in each step; or the name of another of these rewards, which is asked for "
        "the text up to the end of each step",
    )
    split: Literal["lines", "sentences"] = Field("lines", description="what a step is")
    before: str | None = Field(None, description="only the text before this is reasoning, for instance `<answer>`")
    reduce: Literal["mean", "min", "per_step"] = Field(
        "mean",
        description="how the steps' values become one; or, `per_step`, that they do not: a token's advantage then comes from the "
        "steps that end at it or later (DeepSeekMath's process supervision)",
    )
    if_none: Annotated[float, Field(allow_inf_nan=False)] = Field(
        0.0, description="value of a response in which no step can be checked"
    )


class ModelRewardConfig(RewardBlock):
    """The score of a reward model of the block `reward_models`."""

    kind: Literal["reward_model"] = "reward_model"
    model: Name = Field(description="name of the block under `reward_models`")


EnvironmentVariable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class JudgePrices(Block):
    """What a judge's tokens cost; for the record only."""

    input_per_million: Annotated[float, Field(ge=0)] = Field(description="of a million tokens that it reads")
    output_per_million: Annotated[float, Field(ge=0)] = Field(description="of a million tokens that it writes")


class JudgeRewardConfig(RewardBlock):
    """A language model behind an OpenAI-compatible endpoint grades each response by a rubric, or compares responses to one
    problem with each other; from 0 to 1."""

    kind: Literal["judge"] = "judge"
    base_url: Annotated[str, OPERATIONAL] = Field(
        pattern=r"^https?://", description="address of the endpoint, mostly ending in `/v1`"
    )
    model: str = Field(min_length=1, description="the model's name at the endpoint")
    api_key_env: Annotated[EnvironmentVariable | None, OPERATIONAL] = Field(
        None, description="environment variable that holds the key; default: none is sent"
    )
    rubric: str = Field(description="text file with what is good and what is bad, in words")
    mode: Literal["score", "pairwise"] = Field(
        "score",
        description="a grade for each response; or the share of its comparisons with others of its group that it wins, each made in both orders",
    )
    max_score: PositiveInt = Field(10, description="highest grade of `mode: score`; the value is grade / max_score")
    opponents: PositiveInt = Field(
        2, description="comparisons that each response enters on its own account, `mode: pairwise`"
    )
    with_answer: bool = Field(False, description="show the gold answer to the judge")
    max_verdict_length: PositiveInt = Field(512, description="tokens that a verdict may have")
    concurrency: Annotated[PositiveInt, OPERATIONAL] = Field(8, description="requests at the same time")
    timeout_s: PositiveFloat = Field(60.0, description="limit for one request")
    max_retries: Annotated[int, OPERATIONAL] = Field(
        3, ge=0, description="of a request that failed, with growing pauses"
    )
    max_calls: Annotated[PositiveInt | None, OPERATIONAL] = Field(
        None, description="requests of a stage; what is over is unscored"
    )
    max_tokens: Annotated[PositiveInt | None, OPERATIONAL] = Field(
        None, description="tokens read and written in a stage; what is over is unscored"
    )
    prices: Annotated[JudgePrices | None, OPERATIONAL] = Field(None, description="default: no cost is recorded")
    cache: Annotated[str, OPERATIONAL] = Field(
        "judge_cache.sqlite", min_length=1, description="file that keeps every verdict"
    )
    accepted_from: Share = Field(0.5, description="value from which a response counts as accepted in metrics")
    canaries: Literal["stop", "off"] = Field(
        "stop",
        description="responses that deserve nothing are graded at the start of each stage; stop it where one is accepted, `mode: score`",
    )


class PythonRewardConfig(RewardBlock):
    """A function of yours: `def reward(problems, completions) -> list[float]`."""

    kind: Literal["python"] = "python"
    function: str = Field(
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", description="`module:function`, importable from the current folder"
    )


RewardConfig = Annotated[
    OutcomeRewardConfig
    | FormatRewardConfig
    | LengthRewardConfig
    | RepetitionRewardConfig
    | ProcessRewardConfig
    | ModelRewardConfig
    | JudgeRewardConfig
    | PythonRewardConfig,
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
