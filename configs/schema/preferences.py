"""The labeler of kind `file`: how the rows of a preference data set become pairs of a better and a worse response."""

import json
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from configs.schema.block import Block, PositiveFloat

Value = bool | int | float | str
Column = Annotated[str, Field(min_length=1)]
Mark = Annotated[str, Field(min_length=1)]


def _with_text_keys(values: Any) -> Any:
    """The keys as JSON writes them, so that a configuration is equal to the one that run.json holds."""
    if not isinstance(values, dict):
        return values
    return {json.dumps(key) if isinstance(key, bool | int | float) else key: value for key, value in values.items()}


class Better(Block):
    """A column that says which of a row's responses is better."""

    column: Column = Field(description="column with the verdict")
    values: list[Value | list[Value]] | None = Field(
        None,
        min_length=2,
        description="for each response, in their order, the value (or list of values) in the column that says that it "
        "is the best: `[1, 0]` if 1 stands for the first response and 0 for the second",
    )
    negative: Literal["first", "second"] | None = Field(
        None,
        description="instead of `values`, for a signed preference: the response that a number under 0 prefers; one "
        "over 0 prefers the other one, and 0 is a tie",
    )
    tie: list[Value] = Field([], description="values that stand for no preference; such rows are left out and counted")

    @model_validator(mode="after")
    def _says_which_way_round(self) -> "Better":
        if (self.values is None) == (self.negative is None):
            raise ValueError(
                f"column={self.column!r} alone does not say which of its values prefers which response; give `values`, one "
                "for each response in their order, or `negative: first` or `second` for a signed preference"
            )
        if self.negative is not None and self.tie:
            raise ValueError(f"tie={self.tie} does not go with negative, where 0 is the tie; drop it, or give values")
        meanings = [*self.of_responses, *([self.tie] if self.tie else [])]
        flat = [value_key(value) for values in meanings for value in values]
        if repeated := [value for value in flat if flat.count(value) > 1]:
            raise ValueError(f"values and tie name {repeated[0]!r} twice; each value has one meaning")
        return self

    @property
    def of_responses(self) -> list[list[Value]]:
        """The values that prefer each response, in the order of the responses; empty with `negative`."""
        return [values if isinstance(values, list) else [values] for values in self.values or []]

    @property
    def num_responses(self) -> int:
        return 2 if self.negative else len(self.of_responses)


class Turns(Block):
    """The marks before each turn of conversations that are written as one text."""

    user: Mark = Field("\n\nHuman:", description="mark before what the user says")
    assistant: Mark = Field("\n\nAssistant:", description="mark before what the assistant says")
    system: Mark | None = Field(None, description="mark before the system message")
    end: Mark | None = Field(None, description="mark at the end of a turn, which is removed: `<|im_end|>` for ChatML")


class FileLabeler(Block):
    """Pairs from an existing preference data set. Each round draws from them.

    The fields that are given say what a row holds: `chosen` and `rejected` (the default), several `responses` with
    `better`, `score` or `rank`, or one `response` a row with `score` or `rank`. A column may be a dotted path into
    mappings and lists (`input.messages`, `answers.rank`).
    """

    kind: Literal["file"] = "file"
    path: Column | Annotated[list[Column], Field(min_length=1)] = Field(
        description="file (JSON lines, JSON, CSV, TSV, Parquet, Arrow; packed or not), pattern such as `data/*.parquet`, or a "
        "list of these; or folder or hub id of a data set",
    )
    name: str | None = Field(None, description="configuration of the data set")
    revision: str | None = Field(None, description="commit of the hub repository")
    dataset_split: str = Field("train", description="split of the data set to read")
    prompt: Column | None = Field(
        "prompt",
        description="column with the prompt, a text or chat messages, or a text with columns in braces "
        "(`{instruction}\\n{input}`). Where a response is a whole conversation, what stands before its last message is "
        "the prompt, and a prompt column has to agree with it; null, or no column `prompt`: the conversations alone",
    )
    system: Column | None = Field(
        None, description="column with a system message, which is put before the prompt; may be empty"
    )
    chosen: Column | None = Field(
        None,
        description="column with the better response: a text, a whole conversation (chat messages, or a text with turn "
        "marks), or a list of such. Default: `chosen`, unless `responses` or `response` is given",
    )
    rejected: Column | None = Field(
        None, description="column with the worse response, in the same forms. Default: `rejected`"
    )
    responses: Column | list[Column] | None = Field(
        None,
        description="instead of chosen and rejected: the columns of two or more responses, or one column with a list "
        "of them (`answers.text` takes `text` of each of the answers)",
    )
    response: Column | None = Field(
        None,
        description="instead of chosen and rejected: the column with the row's one response; rows with the same prompt "
        "are compared",
    )
    better: Better | None = Field(None, description="the column that says which of the responses is better")
    score: Column | list[Column] | None = Field(
        None,
        description="higher is better: a column for each of the responses, or one with a list, or with the row's "
        "score; true and false count as 1 and 0",
    )
    rank: Column | list[Column] | None = Field(None, description="lower is better, in the same forms as score")
    score_values: Annotated[dict[str, float | None], BeforeValidator(_with_text_keys)] = Field(
        {},
        description="the number that a value in the score column stands for (`{thumbs_up: 1, thumbs_down: 0}`); null: "
        "none, the response is left out and counted",
    )
    min_margin: PositiveFloat | None = Field(
        None,
        description="smallest difference of score or rank, or smallest signed preference, that makes a pair; default: "
        "any. Of scored or ranked responses, at most `pairs_per_problem` pairs are made of a list or of a prompt",
    )
    turns: Turns | None = Field(
        None,
        description="marks of conversations that are written as one text; default: those of HH-RLHF, in texts that "
        "begin with one",
    )

    @model_validator(mode="before")
    @classmethod
    def _pairs_by_default(cls, data: Any) -> Any:
        if not isinstance(data, dict) or any(data.get(name) is not None for name in ("responses", "response")):
            return data
        names = ("chosen", "rejected")
        return {**data, **{name: name for name in names if data.get(name) is None}}

    @model_validator(mode="after")
    def _one_form(self) -> "FileLabeler":
        given = [name for name in ("chosen", "responses", "response") if getattr(self, name) is not None]
        if self.rejected is not None and self.chosen is None:
            given.append("rejected")
        if len(given) > 1:
            raise ValueError(
                f"{' and '.join(given)} say in more than one way where the responses are; give chosen and rejected, or "
                "responses, or response"
            )
        verdicts = [name for name in ("better", "score", "rank") if getattr(self, name) is not None]
        allowed = {"chosen": (), "responses": ("better", "score", "rank"), "response": ("score", "rank")}[given[0]]
        self._check_verdict(given[0], verdicts, allowed)
        self._check_columns()
        self._check_margin()
        return self

    def _check_verdict(self, form: str, verdicts: list[str], allowed: tuple[str, ...]) -> None:
        if form == "chosen" and verdicts:
            raise ValueError(
                f"chosen and rejected already say which response is better, so {verdicts[0]} has no meaning; drop it, or "
                "write responses: [chosen, rejected] to let it decide"
            )
        if allowed and (len(verdicts) != 1 or verdicts[0] not in allowed):
            raise ValueError(
                f"{form} needs exactly one of {', '.join(allowed)} to say which response is better, and has "
                f"{' and '.join(verdicts) or 'none'}"
            )

    def _check_columns(self) -> None:
        columns = self.responses if isinstance(self.responses, list) else None
        if columns is not None and (len(columns) < 2 or len(set(columns)) < len(columns)):
            raise ValueError(f"responses={columns} must name two or more different columns")
        for name, value in (("score", self.score), ("rank", self.rank)):
            num_values = len(value) if isinstance(value, list) else None
            if value is not None and num_values != (None if columns is None else len(columns)):
                wanted = f"a list of {len(columns)} columns, one a response" if columns else "one column"
                raise ValueError(f"{name}={value!r} does not fit the responses; give {wanted}")
        if self.better is not None and columns is not None and len(columns) != self.better.num_responses:
            raise ValueError(
                f"better tells {self.better.num_responses} responses apart, but responses names {len(columns)} columns; "
                "give a value for each"
            )

    def _check_margin(self) -> None:
        signed = self.better is not None and self.better.negative is not None
        if self.min_margin is not None and not (self.score or self.rank or signed):
            raise ValueError(
                f"min_margin={self.min_margin} has no meaning without score, rank or better.negative; drop it"
            )
        if self.score_values and self.score is None:
            raise ValueError("score_values has no meaning without score; give score")


def value_key(value: Any) -> Any:
    """A value as it is compared with what stands in a file: numbers and truth values may be written as text.

    >>> value_key("1.0") == value_key(1), value_key("False") == value_key(False), value_key(" A ")
    (True, True, 'A')
    """
    if not isinstance(value, str):
        return value
    text = value.strip()
    if (truth := TRUTH.get(text.lower())) is not None:
        return truth
    try:
        return float(text)
    except ValueError:
        return text


TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
"""the words that YAML reads as truth values where they are not quoted"""
