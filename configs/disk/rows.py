"""Rows of JSONL files and of data sets, each with its place for messages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configs.errors import ConfigError
from configs.records import Message

Row = tuple[str, dict[str, Any]]
"""where it stands, and its columns"""


def read_jsonl_rows(path: Path, field_name: str) -> Iterator[Row]:
    """Every line that is not blank; `field_name` is the field of the configuration that named the file.

    Raises:
        ConfigError: the file is missing or holds something else.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist; set {field_name}, relative to {Path.cwd()}") from error
    except IsADirectoryError as error:
        raise ConfigError(f"{path} is a folder; name a JSONL file, or use kind: dataset") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not text (byte {error.start} is no UTF-8); name a JSONL file") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield f"{path} line {number}", _json_object(line, f"{path} line {number}")


def _json_object(line: str, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{place}: broken JSON ({error.msg} at column {error.colno}); mend the line") from error
    if not isinstance(row, dict):
        raise ConfigError(f"{place}: {shortened(row)} is no JSON object; write one {{...}} a line")
    return row


def read_dataset_rows(path: str, name: str | None, dataset_split: str, revision: str | None) -> Iterator[Row]:
    """What `datasets.load_dataset` loads.

    Raises:
        ConfigError: it loads nothing.
    """
    import datasets  # takes over a second to import

    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        rows = datasets.load_dataset(path, name, split=dataset_split, revision=revision)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise ConfigError(
            f"data set {path} (name={name}, dataset_split={dataset_split}) could not be loaded: "
            f"{str(error).partition(chr(10))[0]}; check path, name, dataset_split and the network, or use a local folder"
        ) from error
    finally:
        if bars:
            datasets.enable_progress_bars()
    for i, row in enumerate(rows):
        yield f"{path} row {i}", dict(row)


def column(row: dict[str, Any], name: str, field_name: str, place: str) -> Any:
    """A row's column.

    Raises:
        ConfigError: there is none; names those that are there.
    """
    if name not in row:
        raise ConfigError(
            f"{place}: no column {name!r}; set {field_name} to one of {', '.join(sorted(map(repr, row)))}"
        )
    return row[name]


def as_messages(value: Any) -> list[Message] | None:
    """Chat messages with role and content alone; None where the value is something else."""
    if isinstance(value, list) and value and all(_is_message(message) for message in value):
        return [{"role": message["role"], "content": message["content"]} for message in value]
    return None


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str) and isinstance(value.get("content"), str)


def shortened(value: Any) -> str:
    """A value as a message shows it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
