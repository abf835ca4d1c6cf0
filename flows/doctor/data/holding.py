"""What the columns of some rows hold, the columns inside of columns included."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from configs.disk.rows.columns import from_json
from configs.disk.rows.messages import as_messages
from configs.errors import ConfigError

Kind = Literal["text", "number", "flag", "conversation", "texts", "list", "mapping", "nothing", "mixed"]
MOST_INSIDE = 2
"""steps into a column that are looked at"""


@dataclass(frozen=True)
class Column:
    """A column, or a dotted path into one, with its values in the rows that were looked at."""

    name: str
    values: list[Any]
    """one a row, None where the row has none"""
    kind: Kind

    @property
    def word(self) -> str:
        """The last step of the name, in lower case and without marks: `FinalAnswer` and `final_answer` are one word."""
        return plain(self.name.rpartition(".")[2])

    @property
    def held(self) -> list[Any]:
        return [value for value in self.values if kind_of(value) != "nothing"]


def plain(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


def columns_of(rows: Sequence[dict[str, Any]]) -> list[Column]:
    """The columns of the rows, each followed by what is inside of it, in the order of the file."""
    return list(_columns(rows, "", MOST_INSIDE))


def _columns(rows: Sequence[Any], before: str, steps: int) -> Iterator[Column]:
    names = dict.fromkeys(name for row in rows if isinstance(row, dict) for name in row)
    for name in names:
        values = [_unpacked(row.get(name)) if isinstance(row, dict) else None for row in rows]
        column = Column(f"{before}{name}", values, common_kind(values))
        yield column
        if steps and column.kind == "mapping":
            yield from _columns(values, f"{column.name}.", steps - 1)
        if steps and column.kind == "list":
            yield from _inside_of_lists(column, steps - 1)


def _inside_of_lists(column: Column, steps: int) -> Iterator[Column]:
    """`answers.rank` for a list of mappings: a list of the rank of each."""
    lists = [value if isinstance(value, list) else [] for value in column.values]
    items = [item for value in lists for item in value]
    if not items or not all(isinstance(item, dict) for item in items):
        return
    for inner in _columns(items, "", steps):
        values = iter(inner.values)
        yield Column(f"{column.name}.{inner.name}", [[next(values) for _ in value] for value in lists], "list")


def _unpacked(value: Any) -> Any:
    return from_json(value) if isinstance(value, str) else value


def common_kind(values: Sequence[Any]) -> Kind:
    """The kind of the values that hold something; `mixed` where they differ."""
    kinds = {kind_of(value) for value in values} - {"nothing"}
    if kinds == {"text", "number"}:
        return "text"
    return kinds.pop() if len(kinds) == 1 else "mixed" if kinds else "nothing"


def kind_of(value: Any) -> Kind:
    if value is None or (isinstance(value, str | list | dict) and not value):
        return "nothing"
    match value:
        case bool():
            return "flag"
        case int() | float():
            return "number"
        case str():
            return "text" if value.strip() else "nothing"
        case dict():
            return "mapping"
        case list() if all(isinstance(item, str) for item in value):
            return "texts"
        case list():
            return "conversation" if _is_conversation(value) else "list"
    return "mixed"


def _is_conversation(value: list[Any]) -> bool:
    try:
        return as_messages(value, "") is not None
    except ConfigError:  # it is one that cannot be read; who tries to is told why
        return True
