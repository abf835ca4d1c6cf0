"""The blocks `evaluation.retention` and `promotion.retention`: suites that measure old abilities, and what may be lost of them."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from configs.schema.block import Block, PositiveInt
from configs.schema.grpo import GrpoConfig
from configs.schema.problems import Source, Text
from configs.schema.rewards import OutcomeRewardConfig
from configs.schema.sources.wheel import DataWheel

Measure = Literal["value", "gold"]
OF_TRAINING = ("weight", "schedule", "floor", "sources")
"""fields of a reward that say how it is trained on, and on which problems"""

SuitePath = Annotated[
    str | Annotated[list[str], Field(min_length=1)],
    Field(description="a file of any format that sources of problems have, a pattern or a list of these"),
]
NumItems = Annotated[PositiveInt, Field(description="items that are measured, the first ones of the data")]


class TextSuite(Block):
    """Texts, each of which counts by its mean log-likelihood in nats a token."""

    kind: Literal["text"] = "text"
    path: SuitePath
    wheel: DataWheel = None
    column: Text = Field("text", description="column with the text")
    num_items: NumItems = 100
    max_tokens: Annotated[int, Field(ge=2)] = Field(
        512, description="tokens of each text that are measured, the first ones"
    )


class ChoiceColumns(Block):
    """Which columns of a multiple-choice suite hold what. Dotted paths lead into columns, as in sources of problems."""

    question: Text = Field("question", description="column with the question, or a template of columns")
    choices: Text = Field("choices", description="column with the choices, in any form that `options` of a source has")
    first_option: Literal[0, 1] | None = Field(
        None, description="number of the first choice, where the answer is a number; default: 0"
    )
    answer: Text = Field("answer", description="column with the right choice: its number, letter, label or text")


class ChoiceSuite(Block):
    """Multiple choice: whether the right choice has the highest log-likelihood a character (lm-eval's acc_norm)."""

    kind: Literal["choice"] = "choice"
    path: SuitePath
    wheel: DataWheel = None
    columns: ChoiceColumns = Field(ChoiceColumns(), description="column names")
    delimiter: str = Field(" ", description="what stands between question and choice")
    num_items: NumItems = 100
    max_tokens: Annotated[int, Field(ge=2)] = Field(
        1024, description="tokens of question and choice together; longer questions lose their first ones"
    )


class GenerateSuite(Block):
    """Problems that are not trained on, each of which counts by whether its greedy response is right."""

    kind: Literal["generate"] = "generate"
    problems: Source = Field(description="source of the problems, as in `problems.sources`")
    checker: OutcomeRewardConfig = Field(description="what decides whether a response is right: an outcome reward")
    template: str = Field("{question}", description="prompt around each question; must contain `{question}`")
    system: str | None = Field(None, description="system message, for models with a chat template")
    num_items: NumItems = 100
    max_response_length: PositiveInt = Field(256, description="most tokens of a response")

    @model_validator(mode="after")
    def _only_checks(self) -> "GenerateSuite":
        fields = OutcomeRewardConfig.model_fields
        if idle := [name for name in OF_TRAINING if getattr(self.checker, name) != fields[name].default]:
            raise ValueError(f"checker has {', '.join(idle)}, which nothing reads where it only checks; leave it out")
        if "{question}" not in self.template:
            raise ValueError(f"template={self.template!r} drops the question; write {{question}} where it belongs")
        return self


RetentionSuite = Annotated[TextSuite | ChoiceSuite | GenerateSuite, Field(discriminator="kind")]


class RetentionBound(Block):
    """What a challenger may lose of a suite against the given policy."""

    max_loss: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        description="a challenger is refused if the upper end of the interval of its loss is over this: nats a token in "
        "suites of kind text, a share of the items in the others"
    )
    measure: Measure = Field(
        "value",
        description="value: what the suite measures; gold: of kind choice, the log-likelihood of the right choice in "
        "nats a token, which tells small losses where accuracy does not",
    )


def check_retention(
    suites: Mapping[str, RetentionSuite], bounds: Mapping[str, RetentionBound], grpo: GrpoConfig
) -> None:
    """Refuse bounds on what is not measured, and responses for which servers have no room.

    Raises:
        ValueError: a bound names no suite, or a measure that its suite does not have; or a suite's responses are longer than
            those that vLLM servers are started for.
    """
    for name, suite in suites.items():
        longest = grpo.max_response_length
        if grpo.vllm is not None and isinstance(suite, GenerateSuite) and suite.max_response_length > longest:
            raise ValueError(
                f"evaluation.retention.{name}.max_response_length={suite.max_response_length} is over "
                f"grpo_config.max_response_length={longest}, for which vLLM servers have room; lower it"
            )
    if unknown := sorted(bounds.keys() - suites.keys()):
        raise ValueError(
            f"promotion.retention names {unknown[0]!r}, which is no suite of evaluation.retention; suites are {sorted(suites)}"
        )
    for name, bound in bounds.items():
        if bound.measure == "gold" and not isinstance(suites[name], ChoiceSuite):
            raise ValueError(
                f"promotion.retention.{name}.measure=gold needs a suite of kind choice, and {name} is of kind "
                f"{suites[name].kind}; leave measure out"
            )
