"""The blocks `problems` and `curriculum`: where problems come from, how they are asked, and which come when."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from configs.schema.block import Block, PositiveFloat, PositiveInt, Share

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


AnswerPattern = Annotated[
    str | None, Field(description="regular expression with one group that takes the answer out of the answer column")
]
WholeSplit = Annotated[
    Literal["train", "dev", "test"] | None,
    Field(description="use the whole source for this split; by default its problems are split by hash"),
]


class JsonlSource(Block):
    """A file with one JSON object a line."""

    kind: Literal["jsonl"] = "jsonl"
    path: str = Field(description="the file, relative to the current folder")
    columns: Columns = Field(Columns(), description="column names")
    answer_pattern: AnswerPattern = None
    split: WholeSplit = None


class DatasetSource(Block):
    """What `datasets.load_dataset` loads."""

    kind: Literal["dataset"] = "dataset"
    path: str = Field(description="hub id or local folder")
    name: str | None = Field(None, description="configuration of the data set, for instance `main`")
    revision: str | None = Field(None, description="commit of a hub id")
    dataset_split: str = Field("train", description="split of the data set that is read")
    columns: Columns = Field(Columns(), description="column names")
    answer_pattern: AnswerPattern = None
    split: WholeSplit = None


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


# ---- curriculum -----------------------------------------------------------------------------------------------------


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
