"""One mark for the fields that change no result: how a run is named, tracked, launched, saved, and what a judge may cost.

    save_steps: Annotated[int, OPERATIONAL] = 10

A run may go on with other values of such a field, no stage runs again because of it, and MLflow keeps it out of its parameters,
which may not change. A mark on a block holds for the whole block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel


@dataclass(frozen=True)
class Operational:
    """The mark's type; `OPERATIONAL` is its one value."""


OPERATIONAL = Operational()


def without_operational(block: BaseModel) -> dict[str, Any]:
    """The block as JSON values, without its operational fields at any depth: what decides the results."""
    decided: dict[str, Any] = _pruned(block, block.model_dump(mode="json"))
    return decided


def _pruned(value: Any, dumped: Any) -> Any:
    """`dumped`, the JSON form of `value`, without what belongs to operational fields."""
    if isinstance(value, BaseModel):
        fields = type(value).model_fields.items()
        kept = [name for name, field in fields if OPERATIONAL not in field.metadata]
        return {name: _pruned(getattr(value, name), dumped[name]) for name in kept}
    if isinstance(value, dict):
        return {key: _pruned(child, of) for child, (key, of) in zip(value.values(), dumped.items(), strict=True)}
    if isinstance(value, list | tuple):
        return [_pruned(child, of) for child, of in zip(value, dumped, strict=True)]
    return dumped


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(`a.b.0.c`, leaf) for each leaf of nested mappings and lists; an empty mapping or list is a leaf.

    >>> dict(flatten({"a": {"b": [1, 2]}, "c": {}}))
    {'a.b.0': 1, 'a.b.1': 2, 'c': {}}
    """
    if isinstance(value, dict | list) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, child in items:
            yield from flatten(child, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value
