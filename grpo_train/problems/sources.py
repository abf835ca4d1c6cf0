"""Reads the problems of each source under the name that the configuration gives it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from configs.disk.rows.reading import DEFAULT_SPLIT, read_rows
from configs.schema.problems import FileSource, ReasoningGymSource, Source
from configs.schema.scopes import source_name
from configs.wheels import located
from grpo_train.problems.families import read_families
from grpo_train.problems.raw_problem import SourceRows
from grpo_train.problems.rows import RowSource, problems_of_rows
from reward_training.rewards.columns import NO_COLUMNS, ColumnsRead

BLOCK = "problems.sources"
PATH = f"{BLOCK}.path"


def read_sources(sources: Sequence[Source], read: ColumnsRead = NO_COLUMNS) -> list[SourceRows]:
    """The problems of each source, in its order; all families of reasoning-gym are made by one process.

    `read` are the columns that rewards read, which the problems keep.

    Raises:
        ConfigError: a source is missing, or does not contain what the configuration says.
    """
    families = iter(read_families([source for source in sources if isinstance(source, ReasoningGymSource)]))
    return [
        _named(SourceRows(next(families)), source)
        if isinstance(source, ReasoningGymSource)
        else _read_rows(source, read)
        for source in sources
    ]


def read_source(source: Source, read: ColumnsRead = NO_COLUMNS) -> SourceRows:
    """`read_sources` for one."""
    return read_sources([source], read)[0]


def _named(rows: SourceRows, source: ReasoningGymSource) -> SourceRows:
    """The rows, whose problems of the family `composite`, say, have the source's own name where it has one."""
    if source.source is None:
        return rows
    return replace(rows, problems=[replace(problem, source=source.source) for problem in rows.problems])


def _read_rows(source: RowSource, read: ColumnsRead) -> SourceRows:
    if isinstance(source, FileSource):
        path = located(source.path, source.wheel, BLOCK)
        names = [path] if isinstance(path, str) else path
        is_folder = len(names) == 1 and Path(names[0]).expanduser().is_dir()
        rows = read_rows(names[0] if is_folder else names, None, DEFAULT_SPLIT, None, PATH)  # a list asks no hub
    else:
        rows = read_rows(source.path, source.name, source.dataset_split, source.revision, PATH)
    return problems_of_rows(source, source_name(source), rows, read)
