"""What stands in a row, and why it is left out."""

from __future__ import annotations

import re
from typing import Any

from configs.disk.rows.columns import MISSING, column, lookup
from configs.errors import UnreadableRow

COLUMN_IN_BRACES = re.compile(r"\{([^{}]+)\}")


class LeftOut(Exception):
    """A row, or one of its responses, that is left out and counted."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


def cell(row: dict[str, Any], path: str, field_name: str, place: str) -> Any:
    """The value of a row's column or dotted path; None or [] where the path ends early in one.

    Raises:
        ConfigError: the row has no such column.
    """
    value = lookup(row, path)
    if value is not MISSING:
        return value
    steps = path.split(".")
    for length in range(1, len(steps)):
        if (begun := lookup(row, ".".join(steps[:length]))) in (None, []):
            return begun
    return column(row, path, field_name, place)


def filled(template: str, row: dict[str, Any], field_name: str, place: str) -> Any:
    """What stands in a column, or the text that columns in braces make, stripped; None where all of them are null.

    Raises:
        UnreadableRow: a column in braces holds no text.
        ConfigError: a column is not there.
    """
    if not (names := COLUMN_IN_BRACES.findall(template)):
        return cell(row, template, field_name, place)
    values = {name: cell(row, name, field_name, place) for name in names}
    if all(value is None for value in values.values()):
        return None
    for name, value in values.items():
        if isinstance(value, list | dict):
            raise UnreadableRow(
                f"{place}: {name!r} holds a {type(value).__name__}; {field_name} needs columns with text"
            )
    return COLUMN_IN_BRACES.sub(lambda match: "" if (text := values[match[1]]) is None else str(text), template).strip()
