"""Reads rows from JSON: an object a line, an array of objects, or an object that holds the rows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, TextIO

from configs.disk.rows.columns import Row, shortened
from configs.disk.rows.lines import bounded_lines, refuse_long
from configs.errors import ConfigError

CHUNK = 1 << 16
"""characters of an array that are read at a time"""
LISTS_OF_ROWS = ("data", "rows", "records", "examples", "items")
"""names of the list in which a file keeps its rows, beside other lists"""
SPLITS = {"train", "test", "validation", "dev"}
SPACE = re.compile(r"\s*")


def json_rows(text: TextIO, path: str, *, is_array: bool, is_lines: bool) -> Iterator[Row]:
    """The rows of a JSON file, one by one. `is_array` where it begins so; else `is_lines` says that each line is a row.

    Raises:
        ConfigError: something in it is no JSON, or no object.
    """
    yield from _array(text, path) if is_array else _objects(text, path, is_lines=is_lines)


# ---- an object a line -----------------------------------------------------------------------------------------------


def _objects(text: TextIO, path: str, *, is_lines: bool) -> Iterator[Row]:
    """A row for each line; without `is_lines`, a file of a single object may also hold the rows."""
    if is_lines:
        yield from _lines(text, path)
        return
    begun = _first_lines(text, 2)
    objects = [(number, line) for number, line in enumerate(begun, start=1) if line.strip()]
    if len(objects) == 1:
        number, line = objects[0]
        yield from rows_in_object(_parsed(line, f"{path} line {number}"), path)
    elif any(_is_whole(line) for _, line in objects):
        yield from _lines(text, path, begun)
    elif objects:
        yield from rows_in_object(_parsed("".join(begun) + text.read(), path), path)


def _lines(text: TextIO, path: str, begun: Sequence[str] = ()) -> Iterator[Row]:
    for number, line in enumerate(chain(begun, bounded_lines(text, path, len(begun))), start=1):
        if line.strip():
            location = f"{path} line {number}"
            yield location, as_object(_parsed(line, location), location)


def _first_lines(text: TextIO, num_written: int) -> list[str]:
    """The lines up to the one that is the `num_written`th with something in it."""
    lines: list[str] = []
    while num_written and (line := text.readline()):
        lines.append(line)
        num_written -= bool(line.strip())
    return lines


def _is_whole(line: str) -> bool:
    try:
        return isinstance(_decoded(line), dict)
    except (ValueError, RecursionError):
        return False


def as_object(value: Any, location: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{location}: {shortened(value)} is no JSON object; write one {{...}} a line")
    return value


def _decoded(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_of_pairs)


def _of_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object.

    Raises:
        ValueError: a key stands in it twice, so that the first value would be lost.
    """
    whole = dict(pairs)
    if len(whole) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice in an object")
    return whole


def _parsed(text: str, location: str) -> Any:
    try:
        return _decoded(text)
    except json.JSONDecodeError as error:
        line = f" line {error.lineno}" if "\n" in text.rstrip() else ""
        raise ConfigError(
            f"{location}{line}: broken JSON ({error.msg} at column {error.colno}); mend the line"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{location}: broken JSON ({_why(error)}); mend the line") from error


def _why(error: ValueError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "brackets in too many brackets"
    return str(error).partition("; use sys.")[0]  # Python's advice on integers of more than 4300 digits


# ---- an object that holds the rows ----------------------------------------------------------------------------------


def rows_in_object(value: Any, path: str) -> Iterator[Row]:
    """The rows of a file of one object: its columns, as lists or by index; those of its only list of objects; its members,
    where they are alike; or itself.

    Raises:
        ConfigError: it has several lists of rows.
    """
    whole = as_object(value, f"{path} line 1")
    if splits := splits_in_object(whole):
        raise ConfigError(
            f"{path} holds the splits {', '.join(splits)}; name it alone, and one of them as dataset_split"
        )
    lists = [name for name, member in whole.items() if _is_list_of_rows(member)]
    if (columns := _columns(whole)) is not None:
        rows = zip(*columns.values(), strict=True)
        yield from _numbered((dict(zip(columns, row, strict=True)) for row in rows), path)
    elif len(lists) == 1:
        yield from _numbered(whole[lists[0]], f"{path} {lists[0]}")
    elif len(whole) > 1 and all(map(_is_row, whole.values())) and _share_most(list(whole.values())):
        yield from _numbered(whole.values(), path)
    else:
        yield f"{path} line 1", whole


def json_splits(text: TextIO, path: str) -> dict[str, list[Row]]:
    """{split: rows} of a file of one object that holds several lists of rows; empty for any other file, broken ones included."""
    begun = _first_lines(text, 2)
    if sum(map(bool, map(str.strip, begun))) > 1 and any(map(_is_whole, begun)):
        return {}
    raw = "".join(begun) + text.read()
    try:
        value = _decoded(raw)
    except (ValueError, RecursionError):
        return {}
    splits = splits_in_object(value) if isinstance(value, dict) else {}
    return {name: list(_numbered(rows, f"{path} {name}")) for name, rows in splits.items()}


def splits_in_object(whole: dict[str, Any]) -> dict[str, list[Any]]:
    """The lists of rows of an object that holds several, beside which there is nothing, or which are called as splits are."""
    lists = {name: member for name, member in whole.items() if _is_list_of_rows(member)}
    return lists if len(lists) > 1 and (len(lists) == len(whole) or SPLITS & lists.keys()) else {}


def _is_list_of_rows(value: Any) -> bool:
    """Whether a value is a list of objects other than chat messages, which a single row may have."""
    return isinstance(value, list) and bool(value) and all(_is_row(item) for item in value)


def _is_row(item: Any) -> bool:
    return isinstance(item, dict) and not {"role", "from"} & item.keys()


def _is_list_of_messages(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, dict) and not _is_row(item) for item in value)


def _columns(whole: dict[str, Any]) -> dict[str, list[Any]] | None:
    """{column: values} of an object of lists of one length, of `{row: value}` mappings, or of `columns` and `data`, as
    `datasets` and pandas write them."""
    members = list(whole.values())
    if {"columns", "data"} <= whole.keys() <= {"columns", "index", "data"} and _is_table(
        whole["columns"], whole["data"]
    ):
        return {name: [row[i] for row in whole["data"]] for i, name in enumerate(whole["columns"])}
    if len(members) < 2:
        return None
    if all(isinstance(member, list) for member in members):
        is_row = any(map(_is_list_of_messages, members)) or any(_is_list_of_rows(whole.get(n)) for n in LISTS_OF_ROWS)
        return whole if len({len(member) for member in members}) == 1 and not is_row else None
    if all(isinstance(member, dict) and member and all(key.isdigit() for key in member) for member in members):
        return {name: list(member.values()) for name, member in whole.items()} if _are_alike(members) else None
    return None


def _is_table(names: Any, rows: Any) -> bool:
    """Whether each of the rows is a list of a value a name."""
    return (
        all(isinstance(part, list) for part in (names, rows))
        and all(isinstance(name, str) for name in names)
        and all(isinstance(row, list) and len(row) == len(names) for row in rows)
    )


def _are_alike(members: list[dict[str, Any]]) -> bool:
    return len({tuple(member) for member in members}) == 1


def _share_most(members: list[dict[str, Any]]) -> bool:
    """Whether all have the same keys, but for fewer than the half of any."""
    common = set(members[0]).intersection(*members)
    return bool(common) and all(2 * len(common) > len(member) for member in members)


def _numbered(items: Iterable[Any], path: str) -> Iterator[Row]:
    for number, item in enumerate(items, start=1):
        location = f"{path} row {number}"
        yield location, as_object(item, location)


# ---- an array -------------------------------------------------------------------------------------------------------


def _array(text: TextIO, path: str) -> Iterator[Row]:
    for number, item in enumerate(_items(text, path), start=1):
        location = f"{path} row {number}"
        if not isinstance(item, dict):
            raise ConfigError(f"{location}: {shortened(item)} is no JSON object; write [{{...}}, {{...}}]")
        yield location, item


def _items(text: TextIO, path: str) -> Iterator[Any]:
    """The items of an array decoded one by one."""
    window = _Window(text, path)
    window.next_character()
    window.at += 1
    if window.next_character() == "]":
        return
    while True:
        yield window.value()
        match window.next_character():
            case ",":
                window.at += 1
            case "]":
                return
            case _:
                raise window.broken("Expecting ',' or ']'", window.at)


class _Window:
    """The part of a text that is read and not yet decoded."""

    def __init__(self, text: TextIO, path: str) -> None:
        self._text, self._path = text, path
        self._decoder = json.JSONDecoder(object_pairs_hook=_of_pairs)
        self._buffer = ""
        self.at = 0
        self._line, self._column = 1, 1
        """of the buffer's first character"""

    def next_character(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            match = SPACE.match(self._buffer, self.at)
            assert match is not None
            self.at = match.end()
            if self.at < len(self._buffer) or not self._read(CHUNK):
                return self._buffer[self.at : self.at + 1]

    def value(self) -> Any:
        """The next value. What is read at a time doubles while the value is not whole."""
        self.next_character()
        size = CHUNK
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self.at)
            except json.JSONDecodeError as error:
                refuse_long(self._buffer, f"{self._path} line {self._line}", "an object")
                if not self._read(size):
                    raise self.broken(error.msg, error.pos) from error
                size *= 2
            except (ValueError, RecursionError) as error:
                raise self.broken(_why(error), self.at) from error
            else:
                self.at = end
                return value

    def _read(self, size: int) -> bool:
        """Drop what is decoded and read more; False at the end of the text."""
        more = self._text.read(size)
        if more:
            self._line, self._column = self._place(self.at)
            self._buffer, self.at = self._buffer[self.at :] + more, 0
        return bool(more)

    def _place(self, position: int) -> tuple[int, int]:
        """(line, column) of a position of the buffer, from 1."""
        newlines = self._buffer.count("\n", 0, position)
        if newlines == 0:
            return self._line, self._column + position
        return self._line + newlines, position - self._buffer.rfind("\n", 0, position)

    def broken(self, message: str, position: int) -> ConfigError:
        line, place = self._place(position)
        return ConfigError(f"{self._path} line {line}: broken JSON ({message} at column {place}); mend the line")
