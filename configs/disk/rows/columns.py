"""Takes values out of a row: a column, or a dotted path into one."""

from __future__ import annotations

import ast
import json
import math
import re
from typing import Any

from configs.errors import ConfigError

Row = tuple[str, dict[str, Any]]
"""(location, for instance `data.jsonl line 3`; columns)"""
MAX_DEPTH = 100
"""most lists and objects around a value"""
BROKEN = re.compile("[\0\ud800-\udfff]")
"""half a character, or the character that ends texts elsewhere: no tokenizer or data base takes them"""
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
    """The list or mapping that a text holds as JSON; any other text as it is, also one that is nested too deeply."""
    if text.lstrip()[:1] in ("{", "["):
        try:
            return tidy(json.loads(text))
        except (ValueError, RecursionError):
            return text
    return text


def unpacked(value: Any) -> Any:
    """The list or mapping that a text holds as JSON or as a Python literal; any other value as it is."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{", "("):
        return value
    if not isinstance(parsed := from_json(value), str):
        return parsed
    try:
        return tidy(ast.literal_eval(value.strip()))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value


def tidy(value: Any, depth: int = 0) -> Any:
    """The value as the rest of the program expects it: None for NaN, by which pandas says that nothing is there, and
    U+FFFD for what is no character of a text.

    Raises:
        ValueError: it is nested in more than MAX_DEPTH lists and objects.
    """
    if isinstance(value, str):
        return whole_text(value)
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if not isinstance(value, list | tuple | dict):
        return value
    if depth > MAX_DEPTH:
        raise ValueError(f"values are nested in more than {MAX_DEPTH} lists and objects")
    if isinstance(value, dict):
        return {tidy(key, depth + 1): tidy(item, depth + 1) for key, item in value.items()}
    return [tidy(item, depth + 1) for item in value]


def whole_text(text: str) -> str:
    """The text with U+FFFD for each character that is none."""
    if BROKEN.search(text) is None:
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "\ufffd")


def _inner_names(row: dict[str, Any], path: str) -> list[str]:
    """The paths one step into the column that a dotted path begins with."""
    first = path.partition(".")[0]
    value = row.get(first) if "." in path else None
    value = from_json(value) if isinstance(value, str) else value
    return [f"{first}.{key}" for key in value] if isinstance(value, dict) else []


def shortened(value: Any) -> str:
    """repr of a value for error messages, at most 60 characters long."""
    try:
        text = repr(value)
    except RecursionError:
        text = f"{type(value).__name__} of lists in lists"
    return text if len(text) <= 60 else f"{text[:57]}..."
