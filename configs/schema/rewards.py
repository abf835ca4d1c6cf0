"""The blocks `rewards` and `combination`: the objectives, and how they are combined into one advantage."""

import re
from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from configs.schema.block import Block, EnvironmentVariable, Name, PositiveFloat, PositiveInt, Share
from configs.schema.operational import LATER, OPERATIONAL

ADDRESS = r"^https?://"
FUNCTION = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"


class WeightSchedule(Block):
    """A factor on the weight of a reward that changes over time."""

    over: Literal["rounds", "steps"] = Field(
        description="unit of time: rounds of the run, or steps of each round's training"
    )
    points: list[tuple[PositiveInt, Annotated[float, Field(ge=0, allow_inf_nan=False)]]] = Field(
        min_length=2,
        description="[round or step, factor], interpolated linearly and constant outside, for instance `[[1, 0.0], "
        "[3, 1.0]]`",
    )

    @model_validator(mode="after")
    def _goes_on(self) -> "WeightSchedule":
        times = [time for time, _ in self.points]
        if any(later <= earlier for earlier, later in pairwise(times)):
            raise ValueError(f"points at {times} do not go up; give each {self.over[:-1]} once, in order")
        return self

    def factor(self, round_index: int, step: int | None) -> float:
        """Linear interpolation of the points, constant outside. `step` is of the round's training, from 1; None is its end."""
        positions, factors = zip(*self.points, strict=True)
        position = round_index if self.over == "rounds" else step
        return float(factors[-1] if position is None else np.interp(position, positions, factors))


class Floor(Block):
    """Caps the weighted sum of a response that is low on this objective, so that others cannot make up for it."""

    below: Annotated[float, Field(allow_inf_nan=False)] = Field(
        description="the cap applies to responses whose value is lower than this"
    )
    cap: Annotated[float, Field(allow_inf_nan=False)] = Field(
        0.0, description="upper bound on the weighted sum of such a response"
    )


class RewardBlock(Block):
    """Fields that all rewards have."""

    name: Name = Field(description="name of the objective in metrics and reports")
    weight: Annotated[float, Field(allow_inf_nan=False)] = Field(
        1.0, description="weight in the combination; 0 only measures the reward"
    )
    schedule: WeightSchedule | None = Field(None, description="changes the weight over time; default: constant")
    floor: Floor | None = Field(None, description="caps the weighted sum where this objective is low; default: none")
    sources: Annotated[Annotated[list[str], Field(min_length=1)] | None, LATER] = Field(
        None,
        description="names of the sources whose problems it scores; it is not asked about others and is no part of "
        "their sum; default: all",
    )

    def applies_to(self, source: str) -> bool:
        """Whether it scores the problems of the source of that name."""
        return self.sources is None or source in self.sources

    def weight_at(self, round_index: int, step: int | None = None) -> float:
        """The weight at `step` of the round's training, from 1; None is its end, after a schedule over steps."""
        return self.weight * (1.0 if self.schedule is None else self.schedule.factor(round_index, step))


class OutcomeRewardConfig(RewardBlock):
    """1 if the final answer is right, else 0 (a reasoning-gym scorer may give values in between)."""

    kind: Literal["outcome"] = "outcome"
    extract: Literal["last_number", "tag", "whole", "final", "boxed", "hash", "answer_is", "json"] = Field(
        "last_number",
        description="where the final answer is: last_number: the last number; tag: the last answer tag; whole: the "
        "whole text; boxed: the last `\\boxed{}`; hash: what follows the last `####`; answer_is: what follows `the "
        "answer is`; json: a field of the last JSON object; final: whichever of these is there",
    )
    strict: bool = Field(
        False,
        description="with `last_number`, `tag` and `whole`, also refuse an answer that is denied, withdrawn, one of "
        "several, or a placeholder; the other extractions always do",
    )
    tag: Name = Field("answer", description="name of the tag for `extract: tag`")
    field: Name = Field("answer", description="name of the field for `extract: json`")
    checker: Literal["exact", "numeric", "choice", "regex", "reasoning_gym", "math"] = Field(
        "exact",
        description="how the answer is compared with the gold answer: exact: equal after normalising; numeric: an "
        "equal number in any notation, within `tolerance`; choice: the letter or the text of one of the problem's "
        "`choices`; regex: matches `pattern`; reasoning_gym: the family's scorer; math: equal as mathematics, by type (`math_verify`, its earlier name, is still read)",
    )
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        1e-6,
        description="relative tolerance of `checker: numeric`; at the default, which allows for rounding, whole "
        "numbers have to be equal",
    )
    pattern: str | None = Field(
        None, description="for `checker: regex`: regular expression that the whole answer must match"
    )
    choices: str = Field(
        "choices", description="for `checker: choice`: column with the choices, `{A: ..., B: ...}` or a list"
    )
    timeout_s: PositiveFloat = Field(
        5.0,
        description="seconds for one check by regex or reasoning_gym; an answer that takes longer is wrong if the gold "
        "answer does not, and else unscored",
    )

    @field_validator("checker", mode="before")
    @classmethod
    def _earlier_name(cls, checker: object) -> object:
        return "math" if checker == "math_verify" else checker

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
    """The pattern, or ValueError if it is not a regular expression."""
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise ValueError(f"pattern={pattern!r} is no regular expression: {error}") from error
    return pattern


class FormatRewardConfig(RewardBlock):
    """1 if the response has the required form, else 0."""

    kind: Literal["format"] = "format"
    pattern: str | None = Field(
        None, description="regular expression that must be found in the response (dot matches newlines)"
    )
    tags: list[Name] = Field(
        [],
        description="the response must consist of these tags, each once and in this order, for instance `[think, "
        "answer]`; the opening tag of a thought with which the chat template ends the prompt counts",
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
    """1 from `shortest` to `target` tokens, falling linearly to 0 at `limit` tokens and at 0 tokens."""

    kind: Literal["length"] = "length"
    target: PositiveInt = Field(description="longest response, in tokens, that still gets 1")
    limit: PositiveInt = Field(description="tokens from which the reward is 0; more than `target`")
    shortest: int = Field(
        0,
        ge=0,
        description="shortest response, in tokens, that gets 1, so that an empty response does not pay; default: off",
    )

    @model_validator(mode="after")
    def _limit_over_target(self) -> "LengthRewardConfig":
        if self.limit <= self.target:
            raise ValueError(f"limit={self.limit} is not over target={self.target}; raise limit")
        if self.shortest > self.target:
            raise ValueError(f"shortest={self.shortest} is over target={self.target}; lower shortest")
        return self


class RepetitionRewardConfig(RewardBlock):
    """1 while at most the share `free` of the token n-grams are repetitions, falling linearly to 0 at a share of 1."""

    kind: Literal["repetition"] = "repetition"
    ngram: PositiveInt = Field(4, description="length of the n-grams, in tokens")
    free: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1, description="share of repeated n-grams that is not penalised"
    )


class ProcessRewardConfig(RewardBlock):
    """Process reward: each step of the reasoning is checked by itself."""

    kind: Literal["process"] = "process"
    checked_by: Name = Field(
        "arithmetic",
        description="`arithmetic`, which verifies the equations in each step; or the name of another reward, which "
        "scores the text up to the end of each step",
    )
    split: Literal["lines", "sentences"] = Field("lines", description="what counts as one step")
    before: str | None = Field(
        None, description="only the text before this string is checked, for instance `<answer>`; default: all of it"
    )
    reduce: Literal["mean", "min", "per_step"] = Field(
        "mean",
        description="mean or min: how the values of the steps become one; per_step: they stay separate, and a token's "
        "advantage comes from the steps that end at it or later (process supervision of DeepSeekMath)",
    )
    if_none: Annotated[float, Field(allow_inf_nan=False)] = Field(
        0.0, description="value of a response in which no step can be checked"
    )


class ModelRewardConfig(RewardBlock):
    """The score of one of the `reward_models`."""

    kind: Literal["reward_model"] = "reward_model"
    model: Name = Field(description="name of the reward model in `reward_models`")


class JudgePrices(Block):
    """Token prices of a judge, from which its cost is recorded."""

    input_per_million: Annotated[float, Field(ge=0)] = Field(description="price of a million input tokens")
    output_per_million: Annotated[float, Field(ge=0)] = Field(description="price of a million output tokens")


class JudgeRewardConfig(RewardBlock):
    """A language model behind an OpenAI-compatible endpoint that grades each response by a rubric, or compares the
    responses to one problem with each other. Values are in [0, 1]."""

    kind: Literal["judge"] = "judge"
    base_url: Annotated[str, OPERATIONAL] = Field(
        pattern=ADDRESS,
        description="address of the endpoint, usually ending in `/v1`, without user name, password and query",
    )
    model: str = Field(min_length=1, description="name of the model at the endpoint")
    api_key_env: Annotated[EnvironmentVariable | None, OPERATIONAL] = Field(
        None, description="environment variable that holds the API key; default: no key is sent"
    )
    rubric: str = Field(description="text file that describes good and bad responses")
    mode: Literal["score", "pairwise"] = Field(
        "score",
        description="score: a grade for each response; pairwise: the share of comparisons with other responses of its "
        "group that it wins, each made in both orders",
    )
    max_score: PositiveInt = Field(10, description="for `mode: score`: highest grade; the value is grade / max_score")
    opponents: PositiveInt = Field(
        2,
        description="for `mode: pairwise`: comparisons that are made for each response; with those made for others it "
        "takes part in up to twice as many",
    )
    with_answer: bool = Field(False, description="show the gold answer to the judge, where the problem has one")
    max_verdict_length: PositiveInt = Field(512, description="most tokens of the judge's reply")
    concurrency: Annotated[PositiveInt, OPERATIONAL] = Field(8, description="concurrent requests")
    timeout_s: PositiveFloat = Field(60.0, description="seconds for one request")
    max_retries: Annotated[int, OPERATIONAL] = Field(
        3, ge=0, description="retries of a failed request, with growing pauses"
    )
    max_calls: Annotated[PositiveInt | None, OPERATIONAL] = Field(
        None, description="most requests per stage; responses beyond it are unscored"
    )
    max_tokens: Annotated[PositiveInt | None, OPERATIONAL] = Field(
        None, description="most input and output tokens per stage; responses beyond it are unscored"
    )
    prices: Annotated[JudgePrices | None, OPERATIONAL] = Field(
        None, description="token prices; default: no cost is recorded"
    )
    cache: Annotated[str, OPERATIONAL] = Field(
        "judge_cache.sqlite", min_length=1, description="SQLite file that keeps every reply with a verdict"
    )
    accepted_from: Share = Field(
        0.5, description="lowest value that counts as accepted, in the metrics and for canaries"
    )
    canaries: Literal["stop", "off"] = Field(
        "stop",
        description="for `mode: score`: stop grades worthless responses at the start of each stage and stops it if "
        "one is accepted; off does not",
    )


class PythonRewardConfig(RewardBlock):
    """Your own function, `def reward(problems, completions) -> list[float]`, or one that was written for TRL's GRPOTrainer
    or as verl's `compute_score`. The names of its parameters tell which: `prompts`, `completions` or `completion_ids`
    (TRL), `solution_str` (verl). It may be async."""

    kind: Literal["python"] = "python"
    function: str = Field(
        pattern=FUNCTION,
        description="`module:function`, importable from the current folder or installed",
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


def asking(rewards: Sequence[RewardConfig], models: Collection[str]) -> list[RewardConfig]:
    """The rewards that ask one of the reward models, of themselves or, after these, to check reasoning steps."""
    asked = [reward for reward in rewards if isinstance(reward, ModelRewardConfig) and reward.model in models]
    names = {reward.name for reward in asked}
    return [*asked, *(r for r in rewards if isinstance(r, ProcessRewardConfig) and r.checked_by in names)]


class CombinationConfig(Block):
    """How several rewards are combined into one advantage."""

    order: Literal["sum_then_normalize", "normalize_then_sum"] = Field(
        "sum_then_normalize",
        description="sum_then_normalize: normalise the weighted sum in its group; normalize_then_sum: normalise each "
        "reward in its group, then sum (GDPO)",
    )
    scale: Literal["group", "batch", "none"] = Field(
        "group",
        description="what centred rewards are divided by: the std of the group, the std of the batch, or nothing (Dr. "
        "GRPO); `normalize_then_sum` takes `group` only",
    )
    baseline: Literal["mean", "leave_one_out"] = Field(
        "mean",
        description="what is subtracted from a reward: the mean of its group, or the mean of the other responses of "
        "the group (RLOO, with `scale: none`)",
    )
    reward_spread_floor: Annotated[float, Field(ge=0)] = Field(
        1e-6, description="a group is dead if its highest and lowest reward differ by no more than this"
    )
    max_unscored_share: Share = Field(
        0.2,
        description="a stage stops if a larger share of the responses (in an evaluation, of those on one split) is unscored by "
        "one reward",
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
