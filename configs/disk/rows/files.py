"""Reads the rows of files in whatever format they have."""

from __future__ import annotations

import io
import lzma
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TextIO

from configs.disk.rows.columns import Row
from configs.disk.rows.json_rows import json_rows, json_splits
from configs.disk.rows.opening import PACKED, SUFFIXES, encoding_of, format_of, unpacked
from configs.disk.rows.table_rows import DELIMITERS, arrow_rows, csv_rows, line_rows, parquet_rows
from configs.errors import ConfigError

PARQUET, ARROW, ARROW_STREAM = b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"
"""first bytes of these formats"""
OBJECT, ARRAY = re.compile(r"\s*\{"), re.compile(r"\s*\[\s*(?:\{|\]|$)")
"""how a JSON file of objects begins"""
HEAD = 4096
"""bytes in which a text shows its format"""


def read_files(files: list[Path], field_name: str) -> Iterator[Row]:
    """The rows of the files, one file after the other.

    Raises:
        ConfigError: a file cannot be read in its format, or a folder is among several files.
    """
    for path in files:
        if path.is_dir():
            raise ConfigError(f"{path} is a folder; name it alone in {field_name}, or the files in it ({path}/*.jsonl)")
        yield from read_file(path)


def read_file(path: Path) -> Iterator[Row]:
    """The rows of one file.

    Raises:
        ConfigError: the file is damaged, or not what its name says.
    """
    with _explained(path), unpacked(path) as data:
        yield from _rows(path, data)


def splits_in_file(path: Path) -> dict[str, list[Row]]:
    """{split: rows} of a JSON file that holds several; empty for any other file or folder.

    Raises:
        ConfigError: it is damaged.
    """
    if path.is_dir():
        return {}
    with _explained(path), unpacked(path) as data:
        head = _head(data)
        if not _begins(head, OBJECT) or _format(path, head) != "json":
            return {}
        with io.TextIOWrapper(data, encoding=encoding_of(head), newline="\n") as text:
            return json_splits(text, str(path))


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Says of errors in reading which file they are in."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} line {_first_undecodable(path)} is not text in UTF-8 ({error.reason}); save the file as UTF-8, "
            "or name a JSONL file"
        ) from error
    except (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"{path} cannot be read: {error}; is it damaged, or another format than its name says?"
        ) from error


def _rows(path: Path, data: IO[bytes]) -> Iterator[Row]:
    head = _head(data)
    match _format(path, head):
        case "parquet":
            yield from parquet_rows(_seekable(data), str(path))
        case "arrow":
            yield from arrow_rows(_seekable(data), str(path), is_stream=not head.startswith(ARROW))
        case text_format:
            with io.TextIOWrapper(data, encoding=encoding_of(head), newline="\n") as text:
                yield from _text_rows(text, text_format, path, is_array=_begins(head, ARRAY))


def _head(data: IO[bytes]) -> bytes:
    """The first bytes, which are read again afterwards."""
    head: bytes = data.peek(HEAD)[:HEAD]  # type: ignore[attr-defined]
    return head


def _text_rows(text: TextIO, text_format: str, path: Path, *, is_array: bool) -> Iterator[Row]:
    """The rows of a text, whose lines end at a newline alone, since JSON may hold other separators of lines."""
    if text_format in ("json", "jsonl"):
        return json_rows(text, str(path), is_array=is_array, is_lines=text_format == "jsonl")
    if text_format == "lines":
        return line_rows(text, str(path))
    return csv_rows(text, str(path), delimiter="\t" if text_format == "tsv" else None)


def _format(path: Path, head: bytes) -> str:
    """The format that the file's name says, or else its content.

    Raises:
        ConfigError: neither says it.
    """
    if head.startswith(PARQUET):
        return "parquet"
    if head.startswith((ARROW, ARROW_STREAM)):
        return "arrow"
    if (named := format_of(path)) is not None:
        return named
    if _begins(head, OBJECT) or _begins(head, ARRAY):
        return "json"
    if path.suffix.lower() == ".txt":
        return "lines"
    first_line = head.decode(encoding_of(head), errors="replace").partition("\n")[0]
    if "\0" in first_line or not any(delimiter in first_line for delimiter in DELIMITERS):
        raise ConfigError(
            f"{path} is of no format that its name ({', '.join(SUFFIXES)}, .txt, also packed as {', '.join(PACKED)}) or its "
            "first bytes tell; convert it to one of these"
        )
    return "csv"


def _begins(head: bytes, pattern: re.Pattern[str]) -> bool:
    return pattern.match(head.decode(encoding_of(head), errors="replace")) is not None


def _seekable(data: IO[bytes]) -> IO[bytes]:
    is_plain = isinstance(data, io.BufferedReader) and isinstance(data.raw, io.FileIO)
    return data if is_plain else io.BytesIO(data.read())


def _first_undecodable(path: Path) -> int:
    """Number of the first line that is no UTF-8."""
    with unpacked(path) as data:
        return next((number for number, line in enumerate(data, start=1) if not _is_utf8(line)), 1)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True
