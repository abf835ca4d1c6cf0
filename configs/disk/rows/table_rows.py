"""Reads rows from tables (CSV, TSV, Parquet and Arrow), and from plain lines."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import IO, Any, TextIO

from configs.disk.rows.columns import Row
from configs.errors import ConfigError

BATCH = 64
"""rows of a Parquet or Arrow file that are in memory at a time"""
DELIMITERS = ",;\t|"


def csv_rows(text: TextIO, path: str, delimiter: str | None) -> Iterator[Row]:
    """The lines of a table with a header, each cell as the text that it is; None finds the delimiter in the header.

    Raises:
        ConfigError: a line has more cells than the header, a quotation is not closed, or two columns have one name.
    """
    csv.field_size_limit(sys.maxsize)
    header = text.readline()
    delimiter = delimiter or max(DELIMITERS, key=header.count)
    lines = csv.reader(chain([header], text), delimiter=delimiter, strict=True)
    try:
        names = next(lines, [])
        _refuse_doubles(names, path)
        for cells in lines:
            if cells:
                yield f"{path} line {lines.line_num}", _named(names, cells, f"{path} line {lines.line_num}")
    except csv.Error as error:
        raise ConfigError(f"{path} line {lines.line_num}: broken CSV ({error}); mend its quotation marks") from error


def line_rows(text: TextIO, path: str) -> Iterator[Row]:
    """A row for each line of a plain text, in the column `text`."""
    for number, line in enumerate(text, start=1):
        if line.strip():
            yield f"{path} line {number}", {"text": line.strip()}


def _refuse_doubles(names: list[str], path: str) -> None:
    if doubles := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{path}: the columns {doubles} stand more than once in the header; rename them")


def _named(names: list[str], cells: list[str], location: str) -> dict[str, Any]:
    """{column: cell}, with None for the cells that a short line lacks."""
    if len(cells) > len(names):
        raise ConfigError(
            f"{location}: {len(cells)} cells under a header of {len(names)}; quote the cells that hold the delimiter"
        )
    return dict(zip(names, [*cells, *[None] * (len(names) - len(cells))], strict=True))


def parquet_rows(data: IO[bytes], path: str) -> Iterator[Row]:
    from pyarrow import parquet  # takes a while to import

    with parquet.ParquetFile(data) as file:
        yield from _batch_rows(file.iter_batches(batch_size=BATCH), path)


def arrow_rows(data: IO[bytes], path: str, *, is_stream: bool) -> Iterator[Row]:
    """The rows of an Arrow file, in either form: for random access, or the stream that `save_to_disk` writes."""
    from pyarrow import ipc

    if is_stream:
        with ipc.open_stream(data) as stream:
            yield from _batch_rows(stream, path)
    else:
        with ipc.open_file(data) as file:
            yield from _batch_rows((file.get_batch(i) for i in range(file.num_record_batches)), path)


def _batch_rows(batches: Iterable[Any], path: str) -> Iterator[Row]:
    number = 0
    for batch in batches:
        as_json = [field.name for field in batch.schema if str(field.type) == "extension<arrow.json>"]
        for start in range(0, batch.num_rows, BATCH):
            for row in batch.slice(start, BATCH).to_pylist():
                number += 1
                yield f"{path} row {number}", row | {name: _of_json_column(row[name]) for name in as_json}


def _of_json_column(value: Any) -> Any:
    """The text that stood in the data: `datasets` keeps the words of a mixed column as JSON, and numbers as they are."""
    if not isinstance(value, str):
        return value
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return parsed if isinstance(parsed, str) else value
