"""The blocks `evaluation` and `promotion`: how policies are measured, and when a challenger becomes champion."""

from typing import Annotated, Literal

from pydantic import Field

from configs.schema.block import Block, Name, PositiveInt, Temperature, TopK, TopP
from configs.schema.measuring.retention import RetentionBound, RetentionSuite
from configs.schema.operational import LATER
from configs.schema.reward_models import WaitMinutes
from configs.schema.rewards import RewardConfig


class EvaluationConfig(Block):
    """How each policy is evaluated on dev and test."""

    checker: Name | Annotated[list[Name], Field(min_length=1)] | None = Field(
        None,
        description="name of the reward that decides whether a response is right (value >= 1), or several, of which "
        "the first that scores the problem's source decides; default: the first outcome reward that scores it",
    )
    rewards: list[RewardConfig] = Field(
        [], description="further rewards, which are measured in evaluation but not trained on"
    )
    num_samples: PositiveInt = Field(4, description="sampled responses per problem, for pass@k and maj@k")
    temperature: Temperature = 0.8
    top_p: TopP = 1.0
    top_k: TopK = 0
    bootstrap_draws: PositiveInt = Field(2000, description="bootstrap draws for the 95% intervals")
    num_kl_problems: Annotated[int, Field(ge=0)] = Field(
        64,
        description="problems of each split (the first ones) on which the KL divergence from the initial policy is "
        "measured; 0 is off, and then no model is loaded for it",
    )
    num_examples: PositiveInt = Field(8, description="problems of each split whose responses are kept for the report")
    retention: Annotated[dict[Name, RetentionSuite], LATER] = Field(
        {},
        description="suites by name that measure old abilities of the given policy, the champion and each challenger "
        "(docs/retention.md)",
    )


class PeopleConfig(Block):
    """People compare responses of champion and challenger to dev problems, blind and in random order."""

    num_problems: PositiveInt = Field(
        8,
        description="the first dev problems to ask about, at most `evaluation.num_examples`; those where both "
        "responses are equal are skipped",
    )
    rule: Literal["report", "not_worse", "better"] = Field(
        "report",
        description="report: the challenger's win rate is only shown; not_worse: promotion needs the upper bound of "
        "its 95% interval to be at least 0.5; better: promotion needs the lower bound to be over 0.5",
    )
    wait_minutes: WaitMinutes = Field(
        0,
        description="minutes that promotion waits for answers after asking; then it decides with the answers it has",
    )


class PromotionConfig(Block):
    """When the policy of a round (the challenger) becomes champion, decided on dev."""

    rule: Literal["better", "not_worse", "always"] = Field(
        "better",
        description="better: the lower bound of the paired gain over the champion must be over 0; not_worse: over "
        "-tolerance; always: no condition",
    )
    metric: str = Field(
        "greedy_accuracy",
        description="metric that is compared: a column of the evaluation's results.jsonl, such as `greedy_accuracy`, "
        "`greedy_accuracy/<source>` or `sampled/<reward>`; problems without it do not count",
    )
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = Field(
        0.9, description="level of the two-sided paired bootstrap interval of the gain"
    )
    tolerance: Annotated[float, Field(ge=0)] = Field(0.02, description="loss in the metric that `not_worse` accepts")
    people: PeopleConfig | None = Field(
        None, description="ask people too, whose answers count beside the rule; default: nobody is asked"
    )
    retention: Annotated[dict[Name, RetentionBound], LATER] = Field(
        {},
        description="what a challenger may lose of each suite of `evaluation.retention` against the given policy, "
        "whatever the rule; default: nothing is refused for what it forgot",
    )
