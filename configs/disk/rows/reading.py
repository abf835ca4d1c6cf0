"""Reads the rows of whatever a path names, each with its location for error messages.

One place for sources of problems and for files of preferences: a file or several (JSON lines, JSON, CSV, TSV, Parquet, Arrow,
packed or not), a folder that `datasets` saved or can load, or a data set of a hub. A number stays the number and a text the
text that stands in the file: `datasets` reads "007" as 7 where a column also has numbers. NaN, by which pandas says that
nothing is there, is None.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from configs.disk.rows.columns import Row, tidy, whole_text
from configs.disk.rows.files import read_files, splits_in_file
from configs.disk.rows.opening import Paths, local_files, looks_like_path
from configs.disk.rows.sets import Rows, Splits, saved_splits, splits_by_datasets
from configs.errors import ConfigError

DEFAULT_SPLIT = "train"


def read_rows(
    path: Paths, name: str | None, dataset_split: str, revision: str | None, field_name: str
) -> Iterator[Row]:
    """The rows, one by one. `field_name` is the configuration field that gives the path.

    A hub is asked only for what is not there and does not look like a path.

    Raises:
        ConfigError: there is nothing at the path, it cannot be read, or it has no such split.
    """
    folder = path if isinstance(path, str) and Path(path).expanduser().is_dir() else None
    if folder is not None:
        _refuse(folder, "folder", revision=revision)
        saved = saved_splits(Path(folder).expanduser())
        if saved is not None:
            _refuse(folder, "folder that was saved", name=name)
        splits = saved or splits_by_datasets(str(Path(folder).expanduser()), name, dataset_split, None)
    elif isinstance(path, str) and not Path(path).expanduser().exists() and not looks_like_path(path):
        splits = splits_by_datasets(path, name, dataset_split, revision)
    else:
        files = local_files(path, field_name)
        _refuse(str(path), "file", name=name, revision=revision)
        splits = Splits(_splits_of(files, dataset_split, field_name), str(path))
    for location, row in splits.read(dataset_split):
        yield location, _tidied(row, location)


def _tidied(row: dict[str, Any], location: str) -> dict[str, Any]:
    try:
        return {whole_text(name): tidy(value) for name, value in row.items()}
    except ValueError as error:
        raise ConfigError(f"{location}: {error}; mend the row, or leave that column out of the file") from error


def _splits_of(files: list[Path], asked: str, field_name: str) -> dict[str, Rows]:
    """The splits in the one file that there is; else the files as one split."""
    if len(files) == 1 and (inside := splits_in_file(files[0])):
        return {split: partial(iter, rows) for split, rows in inside.items()}
    return {_split_of_files(files, asked): partial(read_files, files, field_name)}


def _refuse(path: str, kind: str, **settings: str | None) -> None:
    if given := [f"{field}={value}" for field, value in settings.items() if value is not None]:
        raise ConfigError(f"{path} is a {kind}, for which {', '.join(given)} has no meaning; leave it out")


def _split_of_files(files: list[Path], asked: str) -> str:
    """The name that files go by as a split: the one that is asked for, where their names have it; else `train`."""
    wanted = asked.partition("[")[0]
    return wanted if all(wanted in file.name for file in files) else DEFAULT_SPLIT
