"""Takes values out of a row: a column, or a dotted path into one."""

from __future__ import annotations

import json
import re
from typing import Any

from configs.errors import ConfigError

Row = tuple[str, dict[str, Any]]
"""(location, for instance `data.jsonl line 3`; columns)"""
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
"""an escape that may be one half of a character"""
MISSING = object()
"""what a path leads to that a row does not have"""


def column(row: dict[str, Any], name: str, field_name: str, place: str) -> Any:
    """The value of a row's column, or of a dotted path into one: `reward_model.ground_truth`, `messages.0.content`.

    Raises:
        ConfigError: the row has no such column; the message names those it has.
    """
    value = lookup(row, name)
    if value is MISSING:
        there = ", ".join(sorted(map(repr, [*row, *_inner_names(row, name)])))
        raise ConfigError(f"{place}: no column {name!r}; set {field_name} to one of {there}")
    return value


def lookup(value: Any, path: str) -> Any:
    """What a dotted path leads to, MISSING where it leads nowhere.

    A key that has dots itself wins. A number is a position in a list (-1 is the last), any other step into a list of
    mappings goes into each of them, and a text that holds JSON is read on the way.

    >>> lookup({"info": '{"answers": [{"text": "4"}, {"text": "four"}]}'}, "info.answers.text")
    ['4', 'four']
    """
    if isinstance(value, str):
        value = from_json(value)
    if isinstance(value, list):
        return _in_list(value, path)
    if not isinstance(value, dict):
        return MISSING
    if path in value:
        return value[path]
    steps = path.split(".")
    for length in range(len(steps) - 1, 0, -1):
        key, rest = ".".join(steps[:length]), ".".join(steps[length:])
        if key in value and (found := lookup(value[key], rest)) is not MISSING:
            return found
    return MISSING


def _in_list(items: list[Any], path: str) -> Any:
    step, _, rest = path.partition(".")
    if step.removeprefix("-").isdigit():
        position = int(step)
        if not -len(items) <= position < len(items):
            return MISSING
        return lookup(items[position], rest) if rest else items[position]
    found = [lookup(item, path) for item in items]
    return MISSING if not found or MISSING in found else found


def from_json(text: str) -> Any:
    """The list or mapping that a text holds as JSON; any other text as it is."""
    if text.lstrip()[:1] in ("{", "["):
        try:
            return mended(json.loads(text), text)
        except (ValueError, RecursionError):
            return text
    return text


def mended(value: Any, raw: str) -> Any:
    """The value that was parsed from `raw`, with U+FFFD where half a character was escaped, which no encoder takes."""
    return _whole(value) if SURROGATE.search(raw) else value


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list | tuple):
        return [_whole(item) for item in value]
    if isinstance(value, dict):
        return {_whole(key): _whole(item) for key, item in value.items()}
    return value


def _inner_names(row: dict[str, Any], path: str) -> list[str]:
    """The paths one step into the column that a dotted path begins with."""
    first = path.partition(".")[0]
    value = row.get(first) if "." in path else None
    value = from_json(value) if isinstance(value, str) else value
    return [f"{first}.{key}" for key in value] if isinstance(value, dict) else []


def shortened(value: Any) -> str:
    """repr of a value for error messages, at most 60 characters long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
