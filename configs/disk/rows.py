"""Reads the rows of JSONL files and data sets, each with its location for error messages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configs.errors import ConfigError
from configs.records import Message

Row = tuple[str, dict[str, Any]]
"""(location, for instance `data.jsonl line 3`; columns)"""


def read_jsonl_rows(path: Path, field_name: str) -> Iterator[Row]:
    """Every line that is not blank. `field_name` is the configuration field that names the file.

    Raises:
        ConfigError: the file is missing, is not text, or a line is not a JSON object.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist; set {field_name}, relative to {Path.cwd()}") from error
    except IsADirectoryError as error:
        raise ConfigError(f"{path} is a folder; name a JSONL file, or use kind: dataset") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not text (byte {error.start} is no UTF-8); name a JSONL file") from error
    for line_number, line in enumerate(lines, start=1):
        if line.strip():
            location = f"{path} line {line_number}"
            yield location, _json_object(line, location)


def _json_object(line: str, location: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{location}: broken JSON ({error.msg} at column {error.colno}); mend the line") from error
    if not isinstance(row, dict):
        raise ConfigError(f"{location}: {shortened(row)} is no JSON object; write one {{...}} a line")
    return row


def read_dataset_rows(path: str, name: str | None, dataset_split: str, revision: str | None) -> Iterator[Row]:
    """The rows that `datasets.load_dataset` gives.

    Raises:
        ConfigError: the data set cannot be loaded.
    """
    import datasets  # takes over a second to import

    had_progress_bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        rows = datasets.load_dataset(path, name, split=dataset_split, revision=revision)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise ConfigError(
            f"data set {path} (name={name}, dataset_split={dataset_split}) could not be loaded: "
            f"{str(error).partition(chr(10))[0]}; check path, name, dataset_split and the network, or use a local folder"
        ) from error
    finally:
        if had_progress_bars:
            datasets.enable_progress_bars()
    for i, row in enumerate(rows):
        yield f"{path} row {i}", dict(row)


def column(row: dict[str, Any], name: str, field_name: str, place: str) -> Any:
    """The value of a row's column.

    Raises:
        ConfigError: the row has no such column; the message names those it has.
    """
    if name not in row:
        raise ConfigError(
            f"{place}: no column {name!r}; set {field_name} to one of {', '.join(sorted(map(repr, row)))}"
        )
    return row[name]


def as_messages(value: Any) -> list[Message] | None:
    """Chat messages reduced to role and content; None if the value is not a list of chat messages."""
    if isinstance(value, list) and value and all(_is_message(message) for message in value):
        return [{"role": message["role"], "content": message["content"]} for message in value]
    return None


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str) and isinstance(value.get("content"), str)


def shortened(value: Any) -> str:
    """repr of a value for error messages, at most 60 characters long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
