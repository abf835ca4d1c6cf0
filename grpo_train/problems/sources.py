"""Reads questions and answers from reasoning-gym families, files and data sets."""

from __future__ import annotations

from configs.disk.rows.reading import DEFAULT_SPLIT, read_rows
from configs.schema.problems import FileSource, ReasoningGymSource, Source
from grpo_train.problems.families import read_family
from grpo_train.problems.raw_problem import SourceRows
from grpo_train.problems.rows import problems_of_rows
from reward_training.rewards.columns import NO_COLUMNS, ColumnsRead

PATH = "problems.sources.path"


def read_source(source: Source, read: ColumnsRead = NO_COLUMNS) -> SourceRows:
    """All problems of a source, in the source's order, with the columns that rewards read.

    Raises:
        ConfigError: the source is missing, or does not contain what the configuration says.
    """
    if isinstance(source, ReasoningGymSource):
        return SourceRows(read_family(source))
    if isinstance(source, FileSource):
        name = source.path if isinstance(source.path, str) else ", ".join(source.path)
        return problems_of_rows(source, name, read_rows(source.path, None, DEFAULT_SPLIT, None, PATH), read)
    rows = read_rows(source.path, source.name, source.dataset_split, source.revision, PATH)
    return problems_of_rows(source, source.path, rows, read)
