"""Reads the items of the suites that measure old abilities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from transformers import PreTrainedTokenizerBase

from configs.disk.files import digest_json
from configs.disk.rows.columns import Row, column, shortened
from configs.disk.rows.reading import DEFAULT_SPLIT, read_rows
from configs.errors import ConfigError
from configs.records import Problem, Prompt
from configs.schema.measuring.retention import ChoiceSuite, GenerateSuite, RetentionSuite, TextSuite
from configs.schema.problems import DatasetSource, ReasoningGymSource
from configs.wheels import data_digest, located
from grpo_train.problems.option_answers import Answered, letters_of_column
from grpo_train.problems.options import read_options
from grpo_train.problems.questions import is_empty, question_of
from grpo_train.problems.sources import read_source
from grpo_train.problems.splits import problem_of
from reward_training.rewards.columns import columns_read

SPLIT = "retention"
"""what stands for the split of problems that only measure old abilities"""


@dataclass(frozen=True)
class TextItem:
    """One text."""

    key: str
    text: str


@dataclass(frozen=True)
class ChoiceItem:
    """One multiple-choice question."""

    key: str
    question: str
    choices: list[str]
    golds: list[int]
    """positions of the right choices"""


ItemT = TypeVar("ItemT", TextItem, ChoiceItem, Problem)


def field_of(name: str) -> str:
    """The suite's place in the configuration, for messages."""
    return f"evaluation.retention.{name}"


def read_texts(suite: TextSuite, name: str) -> list[TextItem]:
    """The first `num_items` distinct texts.

    Raises:
        ConfigError: there is no such file or column, no row, or a row without a text.
    """
    return _first(_texts(suite, name), suite.num_items, name)


def _texts(suite: TextSuite, name: str) -> Iterator[TextItem]:
    for location, row in _rows(suite, name):
        text = column(row, suite.column, f"{field_of(name)}.column", location)
        if not isinstance(text, str) or not text.strip():
            raise ConfigError(
                f"{location}: column {suite.column!r} of {field_of(name)} is {shortened(text)}, which is no text; leave the row "
                "out, or name another column"
            )
        yield TextItem(digest_json([text]), text)


def read_choices(suite: ChoiceSuite, name: str) -> list[ChoiceItem]:
    """The first `num_items` distinct questions. The whole file tells whether answers are numbers, letters, labels or texts.

    Raises:
        ConfigError: there is no such file or column, no row, or a row without a question or a right choice.
    """
    asked: list[str] = []
    answered: list[Answered] = []
    for location, row in _rows(suite, name):
        asked.append(_question(row, suite, name, location))
        choices = column(row, suite.columns.choices, f"{field_of(name)}.columns.choices", location)
        answer = column(row, suite.columns.answer, f"{field_of(name)}.columns.answer", location)
        if is_empty(answer):
            raise ConfigError(f"{location}: {field_of(name)} has a question without an answer; leave the row out")
        answered.append(Answered(answer, read_options(choices, location, "columns.choices"), location))
    first = suite.columns.first_option
    letters = letters_of_column(answered, first or 0, is_counted=first is not None)
    items = (_choice_item(*parts, name) for parts in zip(asked, answered, letters, strict=True))
    return _first(items, suite.num_items, name)


def _question(row: dict[str, Any], suite: ChoiceSuite, name: str, location: str) -> str:
    asked = question_of(row, suite.columns.question, location)
    if asked is None or not isinstance(asked.content, str):
        raise ConfigError(
            f"{location}: {suite.columns.question!r} of {field_of(name)} holds no text to choose after; mend columns.question, or "
            "leave the row out"
        )
    return asked.content


def _choice_item(question: str, answered: Answered, letters: Sequence[str], name: str) -> ChoiceItem:
    texts = answered.options.texts
    if not letters:
        raise ConfigError(
            f"{answered.place}: the answer {shortened(answered.answer)} of {field_of(name)} is none of the choices "
            f"{shortened(list(texts.values()))}; mend columns.choices or columns.answer"
        )
    golds = sorted(list(texts).index(letter) for letter in letters)
    choices = list(texts.values())
    return ChoiceItem(digest_json([question, choices, golds]), question, choices, golds)


def read_problems(suite: GenerateSuite, name: str, tokenizer: PreTrainedTokenizerBase) -> list[Problem]:
    """The first `num_items` distinct problems, with their prompts.

    Raises:
        ConfigError: the source is at fault.
    """
    try:
        raws = read_source(suite.problems, columns_read([suite.checker])).problems
    except ConfigError as error:
        raise ConfigError(f"{field_of(name)}.problems: {error}") from error
    has_template = tokenizer.chat_template is not None
    problems = (problem_of(raw, suite, split=SPLIT, has_chat_template=has_template) for raw in raws)
    return _first(problems, suite.num_items, name)


SHORTEST_QUESTION = 20
"""characters of a question that stands in a training prompt by no chance"""


def trained_on(
    suite: RetentionSuite, name: str, problems: Sequence[Problem], tokenizer: PreTrainedTokenizerBase
) -> str | None:
    """What is said of a suite whose questions are trained on too; None where none is, or of texts, which are no questions."""
    if isinstance(suite, GenerateSuite):
        keys = {problem.key for problem in problems}
        is_trained_on = [problem.key in keys for problem in read_problems(suite, name, tokenizer)]
    elif isinstance(suite, ChoiceSuite):
        prompts = "\n\n".join(_words(problem.prompt) for problem in problems)
        questions = [item.question.strip() for item in read_choices(suite, name)]
        is_trained_on = [len(question) >= SHORTEST_QUESTION and question in prompts for question in questions]
    else:
        return None
    if not any(is_trained_on):
        return None
    return (
        f"{field_of(name)}: {sum(is_trained_on)} of its {len(is_trained_on)} questions are trained on, so that it does not tell what "
        "becomes of old abilities; name data that nothing is trained on"
    )


def _words(prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else "\n\n".join(message["content"] for message in prompt)


def _rows(suite: TextSuite | ChoiceSuite, name: str) -> Iterator[Row]:
    path = located(suite.path, suite.wheel, field_of(name))
    paths = [path] if isinstance(path, str) else path
    yield from read_rows(paths, None, DEFAULT_SPLIT, None, f"{field_of(name)}.path")  # a list asks no hub


def _first(items: Iterator[ItemT], num_items: int, name: str) -> list[ItemT]:
    """The first distinct items."""
    found = list(islice(_distinct(items), num_items))
    if not found:
        raise ConfigError(f"{field_of(name)} holds no item; name data that has some")
    return found


def _distinct(items: Iterator[ItemT]) -> Iterator[ItemT]:
    seen: set[str] = set()
    for item in items:
        if item.key not in seen:
            seen.add(item.key)
            yield item


def suite_digests(suites: Mapping[str, RetentionSuite]) -> dict[str, str]:
    """{`retention/<suite>`: digest of its local data}; without suites whose data a program makes or a hub has."""
    found = {f"retention/{name}": _digest(suite) for name, suite in suites.items()}
    return {name: value for name, value in found.items() if value is not None}


def refuse_moving(suite: RetentionSuite, name: str) -> None:
    """Refuse problems of a hub without a revision: each round reads them anew, and two rounds may read others.

    Raises:
        ConfigError: they are.
    """
    if not isinstance(suite, GenerateSuite) or isinstance(suite.problems, ReasoningGymSource):
        return
    source = suite.problems
    if _digest(suite) is None and getattr(source, "revision", None) is None:
        raise ConfigError(
            f"{field_of(name)}.problems.path={source.path!r} is read in each round, and its newest state may be another one then; set "
            f"{field_of(name)}.problems.revision"
        )


def _digest(suite: RetentionSuite) -> str | None:
    source = suite.problems if isinstance(suite, GenerateSuite) else suite
    match source:
        case ReasoningGymSource():
            return None
        case DatasetSource():
            return data_digest(source.path, None)
        case _:
            return data_digest(source.path, source.wheel)
