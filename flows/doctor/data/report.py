"""The command `regroup doctor --data PATH`: says what a file, folder or data set holds, proposes the block of a configuration
that brings it in, and shows what problems or pairs it makes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError
from rich.table import Table
from rich.text import Text
from transformers import PreTrainedTokenizerBase

from configs.disk.rows.columns import Row
from configs.disk.rows.reading import read_rows
from configs.errors import ConfigError
from configs.reader import load_config
from configs.records import PreferencePair, Prompt
from configs.schema.config import Config
from configs.schema.preferences import FileLabeler
from configs.schema.problems import DatasetSource, FileSource, ProblemsConfig
from configs.schema.reward_models import TrainedRewardModel
from flows.doctor.data.holding import Column, columns_of
from flows.doctor.data.labeler_blocks import UNKNOWN, labeler_blocks
from flows.doctor.data.problem_blocks import answers_passed_over, problem_blocks
from grpo_train.policies.model import load_tokenizer
from grpo_train.policies.model_source import prepare_policy
from grpo_train.problems.raw_problem import RawProblem
from grpo_train.problems.rows import problems_of_rows
from grpo_train.problems.splits import build_prompt
from reward_training.answers.gold import type_of
from reward_training.preferences.reading import preferences_of_rows, told
from reward_training.transformer.rendering import prompt_text
from tasks.runs.workspace import models_folder
from tasks.showing.terminal import Terminal

NUM_ROWS = 200
"""rows that are looked at"""
SHOWN = 3
"""problems or pairs that are shown"""
SHOWN_CHARACTERS = 600
ENOUGH = 0.5
"""share of the rows that a proposal has to read"""
MOST_TRIED = 200
"""proposals that are tried"""
Block = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """Where the rows are, as `path`, `name` and `dataset_split` of a configuration say it."""

    path: str
    name: str | None = None
    split: str | None = None

    def read(self) -> list[Row]:
        """The first NUM_ROWS rows.

        Raises:
            ConfigError: they cannot be read, or there are none.
        """
        rows = list(islice(read_rows(self.path, self.name, self.split or "train", None, "--data"), NUM_ROWS))
        if not rows:
            raise ConfigError(f"--data {self.path} holds no row; name a file or data set that holds some")
        return rows

    @property
    def is_file(self) -> bool:
        return Path(self.path).is_file() or any(mark in self.path for mark in "*?[")

    @property
    def block(self) -> Block:
        given: Block = {"path": self.path, "name": self.name, "dataset_split": self.split}
        return {field: value for field, value in given.items() if value is not None}


@dataclass(frozen=True)
class Problems:
    """A block of `problems.sources` and what it makes of the rows."""

    block: Block
    problems: list[RawProblem]
    left_out: str


@dataclass(frozen=True)
class Pairs:
    """A labeler and what it makes of the rows."""

    block: Block
    pairs: list[PreferencePair]
    left_out: str


def run_data_doctor(place: Place, config: Config | None) -> None:
    """Print the columns, the proposal, and SHOWN problems or pairs, rendered by the policy's template where `config` is given.

    Raises:
        ConfigError: the data cannot be read, or neither problems nor pairs are found in it.
    """
    terminal, rows = Terminal(), place.read()
    columns = columns_of([row for _, row in rows])
    terminal.print(render_columns(columns, len(rows)))
    tokenizer = None if config is None else _tokenizer(config)
    pairs = propose_labeler(place, rows, columns)
    reasons: list[str] = []
    problems = None if pairs is not None else propose_source(place, rows, columns, reasons)
    if pairs is not None:
        terminal.print(_yaml(labeler_part(pairs), pairs.left_out))
        _ask_for_direction(pairs)
        for number, pair in enumerate(pairs.pairs[:SHOWN], start=1):
            terminal.print(_shown_pair(number, pair, tokenizer))
    elif problems is not None:
        terminal.print(_yaml(problems_part(problems), problems.left_out))
        if problems.problems[0].answer is None and (names := answers_passed_over(columns)):
            terminal.print(f"# {', '.join(names)}: texts too long to compare as answers, and without a box or ####")
        settings = config.problems if config else ProblemsConfig.model_validate(problems_part(problems)["problems"])
        for number, problem in enumerate(problems.problems[:SHOWN], start=1):
            terminal.print(_shown_problem(number, problem, tokenizer, settings))
    else:
        raise ConfigError(
            f"neither questions nor pairs of responses are found in {place.path} by the names of its columns; name them in "
            "columns.question and columns.answer of a source, or in prompt, chosen and rejected of a labeler (docs/data.md)"
            + (f". The first try ended with: {reasons[0]}" if reasons else "")
        )


# ---- proposals ------------------------------------------------------------------------------------------------------


def propose_source(
    place: Place, rows: Sequence[Row], columns: Sequence[Column], reasons: list[str] | None = None
) -> Problems | None:
    """The first block that reads most of the rows; `reasons` gets why the others do not."""
    kind = "file" if place.is_file else "dataset"

    def read(block: Block) -> Problems:
        whole = {"kind": kind, **place.block, **block}
        source = (FileSource if kind == "file" else DatasetSource).model_validate(whole)
        found = problems_of_rows(source, place.path, rows)
        left_out = {"empty": found.num_empty, "without the answer in its place": found.num_unmatched}
        return Problems(whole, found.problems, _told(left_out))

    return _first(problem_blocks(columns), read, lambda found: len(found.problems), len(rows), reasons)


def propose_labeler(place: Place, rows: Sequence[Row], columns: Sequence[Column]) -> Pairs | None:
    """The first labeler that makes pairs; one whose direction only a person can tell, if there is no other."""
    undecided: list[Block] = []

    def read(block: Block) -> Pairs:
        if UNKNOWN in repr(block):
            undecided.append(block)
            raise ConfigError("the direction is not known")
        whole = {"kind": "file", **place.block, **block}
        labeler = FileLabeler.model_validate(whole)
        settings = TrainedRewardModel(labeler=labeler)
        found = preferences_of_rows(rows, labeler, name="proposed", config=settings, round_index=0)
        return Pairs({"kind": "file", **place.block, **block}, found.pairs, told(found.left_out))

    found = _first(labeler_blocks(columns), read, lambda pairs: len({p.problem_key for p in pairs.pairs}), 1)
    if found is None and undecided:
        return Pairs({"kind": "file", **place.block, **undecided[0]}, [], "")
    return found


def _first(
    blocks: Iterable[Block],
    read: Callable[[Block], T],
    size: Callable[[T], int],
    num_rows: int,
    reasons: list[str] | None = None,
) -> T | None:
    for block in islice(blocks, MOST_TRIED):
        try:
            found = read(block)
        except (ConfigError, ValidationError) as error:
            if reasons is not None and isinstance(error, ConfigError):
                reasons.append(str(error))
            continue
        if size(found) and size(found) >= ENOUGH * num_rows:
            return found
    return None


def _told(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def _ask_for_direction(pairs: Pairs) -> None:
    if UNKNOWN in repr(pairs.block):
        column = pairs.block["better"]["column"] if "better" in pairs.block else pairs.block["score"]
        raise ConfigError(
            f"which value of column {column!r} prefers which response cannot be told from the file: put it in place of "
            f"{UNKNOWN!r} in the labeler above, by what the documentation of the data says (docs/data.md, Preferences)"
        )


def reward_for(problems: Problems) -> Block:
    """A reward that fits the answers."""
    golds = [problem.answer for problem in problems.problems if problem.answer is not None]
    if not golds:
        endpoint = {"base_url": "http://127.0.0.1:8000/v1", "model": "name-of-the-model", "rubric": "rubric.txt"}
        return {"name": "quality", "kind": "judge", **endpoint}
    if "options" in problems.block.get("columns", {}):
        return {"name": "correct", "kind": "outcome", "extract": "final", "checker": "choice"}
    types = [type_of(gold) for gold in golds]
    is_formal = sum(kind not in ("words", "unread", "broken") for kind in types) > len(types) / 2
    return {"name": "correct", "kind": "outcome", "extract": "final", "checker": "math" if is_formal else "exact"}


# ---- what is printed ------------------------------------------------------------------------------------------------


def render_columns(columns: Sequence[Column], num_rows: int) -> Table:
    """A line a column: what it holds, in how many of the rows, and one of its values."""
    table = Table("column", "holds", "in", "for instance", box=None, pad_edge=False, title_justify="left")
    for column in columns:
        example = repr(column.held[0]) if column.held else ""
        short = example if len(example) <= SHOWN_CHARACTERS // 10 else f"{example[: SHOWN_CHARACTERS // 10]}..."
        table.add_row(Text(column.name), column.kind, f"{len(column.held)}/{num_rows}", Text(short))
    return table


def problems_part(problems: Problems) -> Block:
    """The part of a configuration that asks these problems and checks their answers."""
    asked: Block = {"sources": [problems.block]}
    if "options" in problems.block.get("columns", {}):
        asked["template"] = "{question}\n\nAnswer with the letter of the right option."
    return {"problems": asked, "rewards": [reward_for(problems)]}


def labeler_part(pairs: Pairs) -> Block:
    """The part of a configuration that trains a reward model on these pairs."""
    return {
        "reward_models": {"quality": {"labeler": pairs.block}},
        "rewards": [{"name": "quality", "kind": "reward_model", "model": "quality"}],
    }


def _yaml(part: Block, left_out: str) -> Text:
    written = yaml.safe_dump(part, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)
    note = f"# left out of the rows that were looked at: {left_out}\n" if left_out else ""
    return Text(f"\n{note}{written}".rstrip())


def _tokenizer(config: Config) -> PreTrainedTokenizerBase:
    folder = prepare_policy(config.policy, models_folder(Path.cwd())).path
    return load_tokenizer(folder, config.template_settings)


def _shown_problem(
    number: int, problem: RawProblem, tokenizer: PreTrainedTokenizerBase | None, settings: ProblemsConfig
) -> Text:
    has_template = tokenizer is None or tokenizer.chat_template is not None
    prompt = build_prompt(problem.question, settings, has_chat_template=has_template)
    golds = [problem.answer, *problem.other_answers] if problem.answer is not None else []
    answer = " or ".join(map(repr, golds)) or "none"
    return Text(f"\n--- problem {number}\n{_shown(prompt, tokenizer)}\n--- gold answer: {_cut(answer)}")


def _shown_pair(number: int, pair: PreferencePair, tokenizer: PreTrainedTokenizerBase | None) -> Text:
    return Text(
        f"\n--- pair {number}\n{_shown(pair.prompt, tokenizer)}\n--- better\n{_cut(pair.chosen)}\n--- worse\n{_cut(pair.rejected)}"
    )


def _shown(prompt: Prompt, tokenizer: PreTrainedTokenizerBase | None) -> str:
    if tokenizer is not None:
        return _cut(prompt_text(tokenizer, prompt))
    if isinstance(prompt, str):
        return _cut(prompt)
    return _cut("\n".join(f"{message['role']}: {message['content']}" for message in prompt))


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def data_doctor(place: Place, config: Path | None, overrides: Sequence[str]) -> None:
    """`run_data_doctor` for the words of the command line.

    Raises:
        ConfigError: there are overrides without a configuration, or what `run_data_doctor` raises.
    """
    if config is None and overrides:
        raise ConfigError(f"--set {overrides[0]} has no configuration to change; name one beside --data")
    run_data_doctor(place, None if config is None else load_config(config, list(overrides)))
