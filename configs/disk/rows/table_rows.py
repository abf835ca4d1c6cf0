"""Reads rows from tables (CSV, TSV, Parquet and Arrow), and from plain lines."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import IO, Any, Literal, TextIO

import numpy as np

from configs.disk.rows.columns import Row
from configs.disk.rows.lines import MAX_LINE, bounded_lines
from configs.errors import ConfigError

BATCH = 64
"""rows of a Parquet or Arrow file that are in memory at a time"""
DELIMITERS = ",;\t|"


def csv_rows(text: TextIO, path: str, delimiter: str | None) -> Iterator[Row]:
    """The lines of a table with a header, each cell as the text that it is; None finds the delimiter in the header.

    Raises:
        ConfigError: a line has more cells than the header, a quotation is not closed, or two columns have one name.
    """
    csv.field_size_limit(MAX_LINE)
    text_lines = bounded_lines(text, path)
    header = next(text_lines, "")
    delimiter = delimiter or max(DELIMITERS, key=header.count)
    begun = [header, *text_lines] if delimiter == "\t" else [header]
    quoting: Literal[0, 3] = csv.QUOTE_NONE if delimiter == "\t" and _is_without_quotes(begun) else csv.QUOTE_MINIMAL
    lines = csv.reader(chain(begun, text_lines), delimiter=delimiter, quoting=quoting, strict=True)
    try:
        names = next(lines, [])
        _refuse_doubles(names, path)
        for cells in lines:
            if cells:
                yield f"{path} line {lines.line_num}", _named(names, cells, f"{path} line {lines.line_num}")
    except csv.Error as error:
        raise ConfigError(f"{path} line {lines.line_num}: broken CSV ({error}); mend its quotation marks") from error


def _is_without_quotes(lines: list[str]) -> bool:
    """Whether quotation marks are a part of the cells, as in most files with tabs: each line is then a row, and marks that
    enclosed something would join lines or not match."""
    rows = [line for line in lines if line.strip("\r\n")]
    if not rows or not rows[0].count("\t") or any(row.count("\t") != rows[0].count("\t") for row in rows):
        return False
    try:
        return sum(1 for _ in csv.reader(rows, delimiter="\t", strict=True)) < len(rows)
    except csv.Error:
        return True


def line_rows(text: TextIO, path: str) -> Iterator[Row]:
    """A row for each line of a plain text, in the column `text`."""
    for number, line in enumerate(bounded_lines(text, path), start=1):
        if line.strip():
            yield f"{path} line {number}", {"text": line.strip()}


def _refuse_doubles(names: list[str], path: str) -> None:
    if doubles := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{path}: the columns {doubles} stand more than once; rename them")


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
        _refuse_doubles(file.schema_arrow.names, path)
        yield from _batch_rows(file.iter_batches(batch_size=BATCH), path)


def arrow_rows(data: IO[bytes], path: str, *, is_stream: bool) -> Iterator[Row]:
    """The rows of an Arrow file, in either form: for random access, or the stream that `save_to_disk` writes."""
    from pyarrow import ipc

    if is_stream:
        with ipc.open_stream(data) as stream:
            _refuse_doubles(stream.schema.names, path)
            yield from _batch_rows(stream, path)
    else:
        with ipc.open_file(data) as file:
            _refuse_doubles(file.schema.names, path)
            yield from _batch_rows((file.get_batch(i) for i in range(file.num_record_batches)), path)


def _batch_rows(batches: Iterable[Any], path: str) -> Iterator[Row]:
    number = 0
    for batch in batches:
        readers = {field.name: reader for field in batch.schema if (reader := _reader(field.type)) is not None}
        for start in range(0, batch.num_rows, BATCH):
            for row in batch.slice(start, BATCH).to_pylist():
                number += 1
                yield f"{path} row {number}", row | {name: reader(row[name]) for name, reader in readers.items()}


def _reader(kind: Any) -> Callable[[Any], Any] | None:
    """What makes the values of an Arrow type those that the data were made of; None where they are so already."""
    from pyarrow import types

    if str(kind) == "extension<arrow.json>":
        return _of_json_column
    if types.is_float32(kind) or types.is_float16(kind):
        return _of_float32 if types.is_float32(kind) else _of_float16
    reader: Callable[[Any], Any] | None
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        reader = _reader(kind.value_type)
        return None if reader is None else lambda items: None if items is None else [reader(item) for item in items]
    if types.is_struct(kind):
        readers = {field.name: reader for field in kind if (reader := _reader(field.type)) is not None}
        return (lambda whole: _read_fields(whole, readers)) if readers else None
    return None


def _of_float32(value: float | None) -> float | None:
    """The number with the fewest digits that a number of 32 bits stands for: 0.1, not 0.10000000149011612."""
    return None if value is None else float(str(np.float32(value)))


def _of_float16(value: float | None) -> float | None:
    return None if value is None else float(str(np.float16(value)))


def _read_fields(whole: dict[str, Any] | None, readers: dict[str, Callable[[Any], Any]]) -> dict[str, Any] | None:
    return None if whole is None else whole | {name: reader(whole[name]) for name, reader in readers.items()}


def _of_json_column(value: Any) -> Any:
    """The text that stood in the data: `datasets` keeps the words of a mixed column as JSON, and numbers as they are."""
    if not isinstance(value, str):
        return value
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return parsed if isinstance(parsed, str) else value
