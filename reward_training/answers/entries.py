"""Entries of reasoning-gym as JSON and back, so that a scorer gets what the library made.

JSON has texts, finite numbers, lists, and objects whose keys are texts. Any other value becomes an object with one key,
`$` and the name of its type. Read back, nothing is evaluated, and no class is made but those that stand here and the
library's enumerations. An entry without such an object is read as it stands.
"""

from __future__ import annotations

import importlib
import math
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from typing import Any

import numpy as np

MARK = "$"
LIBRARY = "reasoning_gym"
LARGEST_INT = 2**63

TO_JSON: dict[type, Callable[[Any], Any]] = {
    tuple: lambda items: [encoded(item) for item in items],
    set: lambda items: [encoded(item) for item in items],
    frozenset: lambda items: [encoded(item) for item in items],
    deque: lambda items: [encoded(item) for item in items],
    dict: lambda items: [[encoded(key), encoded(value)] for key, value in items.items()],
    OrderedDict: lambda items: [[encoded(key), encoded(value)] for key, value in items.items()],
    Counter: lambda items: [[encoded(key), encoded(value)] for key, value in items.items()],
    int: hex,
    float: str,
    complex: lambda number: [encoded(number.real), encoded(number.imag)],
    Fraction: str,
    Decimal: str,
    bytes: bytes.hex,
    datetime: datetime.isoformat,
    date: date.isoformat,
    time: time.isoformat,
    timedelta: lambda span: [span.days, span.seconds, span.microseconds],
    range: lambda numbers: [numbers.start, numbers.stop, numbers.step],
    np.ndarray: lambda array: [array.dtype.str, encoded(array.tolist())],
}
"""what stands beside the mark of each type"""

FROM_JSON: dict[str, Callable[[Any], Any]] = {
    "tuple": lambda items: tuple(map(decoded, items)),
    "set": lambda items: set(map(decoded, items)),
    "frozenset": lambda items: frozenset(map(decoded, items)),
    "deque": lambda items: deque(map(decoded, items)),
    "dict": lambda pairs: dict(map(decoded, pairs)),
    "OrderedDict": lambda pairs: OrderedDict(map(decoded, pairs)),
    "Counter": lambda pairs: Counter(dict(map(decoded, pairs))),
    "int": lambda text: int(text, 16),
    "float": float,
    "complex": lambda parts: complex(*map(decoded, parts)),
    "Fraction": Fraction,
    "Decimal": Decimal,
    "bytes": bytes.fromhex,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "timedelta": lambda parts: timedelta(*parts),
    "range": lambda parts: range(*parts),
    "ndarray": lambda parts: np.array(decoded(parts[1]), dtype=np.dtype(parts[0])),
    "numpy": lambda parts: np.dtype(parts[0]).type(decoded(parts[1])),
    "enum": lambda parts: _member(*parts),
}


def encoded(value: Any) -> Any:
    """The value as JSON can hold it.

    >>> encoded({"board": ((1, 2), (3, 4)), "weights": {2: Fraction(1, 3)}})
    {'board': {'$tuple': [{'$tuple': [1, 2]}, {'$tuple': [3, 4]}]}, 'weights': {'$dict': [[2, {'$Fraction': '1/3'}]]}}

    Raises:
        TypeError: it holds a value of another type.
    """
    kind = type(value)
    if value is None or kind in (str, bool) or _is_plain_number(value):
        return value
    if kind is list:
        return [encoded(item) for item in value]
    if kind is dict and all(type(key) is str and not key.startswith(MARK) for key in value):
        return {key: encoded(item) for key, item in value.items()}
    if kind in TO_JSON:
        return {MARK + kind.__name__: TO_JSON[kind](value)}
    if isinstance(value, Enum) and _is_of_library(kind.__module__):
        return {MARK + "enum": [kind.__module__, kind.__qualname__, value.name]}
    if isinstance(value, np.generic) and type(value.item()) in (str, bool, int, float, complex):
        return {MARK + "numpy": [value.dtype.str, encoded(value.item())]}
    raise TypeError(f"a value of type {kind.__module__}.{kind.__qualname__}")


def decoded(value: Any) -> Any:
    """The value that `encoded` was given.

    >>> decoded({"board": {"$tuple": [1, {"$Fraction": "1/3"}]}})
    {'board': (1, Fraction(1, 3))}
    """
    if isinstance(value, list):
        return [decoded(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        [(key, content)] = value.items()
        if key.startswith(MARK) and (read := FROM_JSON.get(key.removeprefix(MARK))) is not None:
            return read(content)
    return {key: decoded(item) for key, item in value.items()}


def _is_plain_number(value: Any) -> bool:
    """Whether every reader of JSON gives the number back as it is."""
    return (type(value) is int and abs(value) < LARGEST_INT) or (type(value) is float and math.isfinite(value))


def _is_of_library(module: str) -> bool:
    return module.split(".")[0] == LIBRARY


def _member(module: str, name: str, member: str) -> Enum:
    """A member of an enumeration of the library."""
    if not _is_of_library(module):
        raise ValueError(f"an entry names a class of {module!r}; it may name those of {LIBRARY} only")
    kind: Any = importlib.import_module(module)
    for part in name.split("."):
        kind = getattr(kind, part)
    if not (isinstance(kind, type) and issubclass(kind, Enum)):
        raise ValueError(f"an entry names {module}.{name}, which is no enumeration")
    return kind[member]
