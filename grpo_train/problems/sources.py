"""Reads questions and answers from reasoning-gym families, files and data sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from configs.disk.rows.reading import DEFAULT_SPLIT, read_rows
from configs.schema.problems import FileSource, ReasoningGymSource, Source
from grpo_train.problems.families import read_families
from grpo_train.problems.raw_problem import SourceRows
from grpo_train.problems.rows import problems_of_rows
from reward_training.rewards.columns import NO_COLUMNS, ColumnsRead

PATH = "problems.sources.path"


def read_sources(sources: Sequence[Source], read: ColumnsRead = NO_COLUMNS) -> list[SourceRows]:
    """The problems of each source; all families of reasoning-gym are made by one process.

    Raises:
        ConfigError: a source is missing, or does not contain what the configuration says.
    """
    families = iter(read_families([source for source in sources if isinstance(source, ReasoningGymSource)]))
    return [
        SourceRows(next(families)) if isinstance(source, ReasoningGymSource) else read_source(source, read)
        for source in sources
    ]


def read_source(source: Source, read: ColumnsRead = NO_COLUMNS) -> SourceRows:
    """All problems of a source, in the source's order, with the columns that rewards read.

    Raises:
        ConfigError: the source is missing, or does not contain what the configuration says.
    """
    if isinstance(source, ReasoningGymSource):
        return read_sources([source])[0]
    if isinstance(source, FileSource):
        names = [source.path] if isinstance(source.path, str) else source.path
        is_folder = len(names) == 1 and Path(names[0]).expanduser().is_dir()
        rows = read_rows(names[0] if is_folder else names, None, DEFAULT_SPLIT, None, PATH)  # a list asks no hub
        return problems_of_rows(source, ", ".join(names), rows, read)
    rows = read_rows(source.path, source.name, source.dataset_split, source.revision, PATH)
    return problems_of_rows(source, source.path, rows, read)
