"""Marks the fields that say how and where a run works, not what it is asked to compute: its name, its launcher.

    save_steps: Annotated[int, OPERATIONAL] = 10

A finished stage stays valid when they change: an existing run may be resumed with other values of such a field, no
stage is run again because of it, and it is not logged as an MLflow parameter, since those cannot change. Some of them
still show in results: `max_calls` and `max_tokens` leave responses unscored, and `wait_minutes` and `enough` decide
which labels of people count. A mark on a block applies to the whole block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel


@dataclass(frozen=True)
class Operational:
    """Type of the mark; `OPERATIONAL` is its only instance."""


OPERATIONAL = Operational()


@dataclass(frozen=True)
class Later:
    """Type of the mark `LATER`; that is its only instance."""


LATER = Later()
"""Marks a field that came after the first runs: while it has its default it is no part of what a run is asked to compute, so
that the stages of runs without it stay valid"""


def without_operational(block: BaseModel) -> dict[str, Any]:
    """What the run is asked to compute: the block as JSON values, at any depth, without operational fields and without
    later ones (`LATER`) at their defaults."""
    pruned: dict[str, Any] = _pruned(block, block.model_dump(mode="json"))
    return pruned


def _pruned(value: Any, dumped: Any) -> Any:
    """`dumped`, the JSON form of `value`, without the fields that `without_operational` leaves out."""
    if isinstance(value, BaseModel):
        fields = type(value).model_fields.items()
        kept = [
            name
            for name, field in fields
            if OPERATIONAL not in field.metadata
            and not (LATER in field.metadata and getattr(value, name) == field.get_default(call_default_factory=True))
        ]
        return {name: _pruned(getattr(value, name), dumped[name]) for name in kept}
    if isinstance(value, dict):
        return {
            key: _pruned(child, dumped_child)
            for child, (key, dumped_child) in zip(value.values(), dumped.items(), strict=True)
        }
    if isinstance(value, list | tuple):
        return [_pruned(child, dumped_child) for child, dumped_child in zip(value, dumped, strict=True)]
    return dumped


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(path such as `a.b.0.c`, leaf) for each leaf of nested mappings and lists; an empty mapping or list is a leaf.

    >>> dict(flatten({"a": {"b": [1, 2]}, "c": {}}))
    {'a.b.0': 1, 'a.b.1': 2, 'c': {}}
    """
    if isinstance(value, dict | list) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, child in items:
            yield from flatten(child, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value
