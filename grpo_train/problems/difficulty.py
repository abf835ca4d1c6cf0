"""Reads difficulties, which are numbers from 0 (easy) to 1 (hard), out of columns of any range."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from configs.disk.rows.columns import shortened
from configs.errors import ConfigError
from configs.schema.problems import DifficultyColumn
from grpo_train.problems.raw_problem import as_difficulty

NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
MAX_OUTSIDE_SHARE = 0.5
"""largest share of values that may lie outside of easy and hard, to which they are moved; with more, the range is wrong"""

Found = Sequence[tuple[str, Any]]
"""(location, value of the column) of each problem"""


def difficulties(found: Found, setting: str | DifficultyColumn | None) -> list[float | None]:
    """A difficulty in [0, 1] for each value; None where it is unknown.

    Without a setting the values count only if all are in [0, 1] and not all 1: in a column of 1 to 5, the 1 is not hard.

    Raises:
        ConfigError: the column that the setting names holds something else.
    """
    if setting is None:
        values = [as_difficulty(_plain(value)) for _, value in found]
        known = [value for value in values if value is not None]
        is_scale = len(known) == sum(value is not None for _, value in found) and any(value < 1 for value in known)
        return values if is_scale else [None] * len(found)
    if isinstance(setting, str):
        return [_as_it_stands(value, setting, location) for location, value in found]
    if setting.levels:
        return [_level(value, setting, location) for location, value in found]
    return _scaled(found, setting)


def _plain(value: Any) -> Any:
    """The number that a text is, as in CSV."""
    return float(value) if isinstance(value, str) and NUMBER.fullmatch(value.strip()) else value


def _as_it_stands(value: Any, column: str, location: str) -> float | None:
    if value is None or value == "":
        return None
    if (difficulty := as_difficulty(_plain(value))) is None:
        raise ConfigError(
            f"{location}: the difficulty is {shortened(value)}; scale it to a number from 0 (easy) to 1 (hard), for "
            f"instance by columns.difficulty: {{column: {column}, easy: 1, hard: 5}}"
        )
    return difficulty


def _level(value: Any, setting: DifficultyColumn, location: str) -> float | None:
    if value is None or value == "":
        return None
    words = [level.casefold() for level in setting.levels]
    if str(value).strip().casefold() not in words:
        raise ConfigError(
            f"{location}: the difficulty is {shortened(value)}, none of columns.difficulty.levels={setting.levels}; add it"
        )
    return words.index(str(value).strip().casefold()) / (len(words) - 1)


def _scaled(found: Found, setting: DifficultyColumn) -> list[float | None]:
    assert setting.easy is not None
    assert setting.hard is not None
    numbers = [_number(value, setting.column, location) for location, value in found]
    unread = [
        place for place, number in zip(found, numbers, strict=True) if number is None and place[1] not in (None, "")
    ]
    if len(unread) > MAX_OUTSIDE_SHARE * len(found):
        location, value = unread[0]
        raise ConfigError(
            f"{location}: the difficulty {setting.column!r} is {shortened(value)}, as in {len(unread)} of {len(found)} rows: no "
            "number alone; if these are words, name them from easy to hard in columns.difficulty.levels"
        )
    shares = [None if number is None else (number - setting.easy) / (setting.hard - setting.easy) for number in numbers]
    outside = [
        number for number, share in zip(numbers, shares, strict=True) if share is not None and not 0 <= share <= 1
    ]
    if len(outside) > MAX_OUTSIDE_SHARE * len(found):
        raise ConfigError(
            f"{len(outside)} of {len(found)} values of {setting.column!r} are outside of easy={setting.easy:g} and "
            f"hard={setting.hard:g}, for instance {outside[0]:g}; give the column's range in columns.difficulty"
        )
    return [None if share is None else min(1.0, max(0.0, share)) for share in shares]


def _number(value: Any, column: str, location: str) -> float | None:
    """The number that a value is, or that stands alone in its text (`Level 3`); None where there is none."""
    if isinstance(value, bool | list | dict):
        raise ConfigError(f"{location}: the difficulty {column!r} is {shortened(value)}; it must be a number")
    if value is None:
        return None
    if isinstance(value, str):
        numbers = NUMBER.findall(value)
        return float(numbers[0]) if len(numbers) == 1 else None
    try:
        number = float(value)
    except OverflowError:  # an integer may be larger than any float
        number = math.inf if value > 0 else -math.inf
    return None if math.isnan(number) else number
