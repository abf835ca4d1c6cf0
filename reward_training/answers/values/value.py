"""The types of answers. A value is compared with values of its type; `reading` makes them from texts."""

from __future__ import annotations

from dataclasses import dataclass

from reward_training.answers.values.quantity import Quantity
from reward_training.answers.values.tree import Node, symbols


@dataclass(frozen=True)
class Expression:
    """A formula, or a number that has to be computed: 2^10."""

    tree: Node
    unit: str = ""


@dataclass(frozen=True)
class Several:
    """Values side by side, without brackets."""

    items: tuple[Value, ...]


@dataclass(frozen=True)
class Brackets:
    """A tuple, a vector, an interval or a list, by its brackets: (1, 2], [1, 2, 3]."""

    opening: str
    closing: str
    items: tuple[Value, ...]

    @property
    def is_interval(self) -> bool:
        """Whether it is one for sure: [1, 2) or (1, oo). (1, 2) and [1, 2] may be a point or a list as well."""
        is_half_open = self.opening + self.closing in ("[)", "(]")
        return len(self.items) == 2 and (is_half_open or any(_is_infinite(item) for item in self.items))


@dataclass(frozen=True)
class Set:
    """Values in braces."""

    items: tuple[Value, ...]


@dataclass(frozen=True)
class Union:
    """Intervals and sets that are joined."""

    items: tuple[Value, ...]


@dataclass(frozen=True)
class Matrix:
    """Rows of values."""

    rows: tuple[tuple[Value, ...], ...]


@dataclass(frozen=True)
class Relation:
    """An equation or inequality: `tree` is the left side minus the right one."""

    sign: str
    """one of = < ≤ ≠; the other directions are turned around"""
    tree: Node


@dataclass(frozen=True)
class Named:
    """A value and the name that it is given: x = 5, f(x) = 2x."""

    name: str
    value: Value
    equation: Relation | None = None
    """the same as an equation, where both sides are formulas"""


@dataclass(frozen=True)
class Words:
    """Any other text, folded so that case, white space and decoration do not matter."""

    text: str
    has_formula: bool = False
    """whether it has signs of a formula, which then could not be read"""


Value = Quantity | Expression | Several | Brackets | Set | Union | Matrix | Named | Relation | Words


def kind(value: Value) -> str:
    """The type of an answer, as the doctor shows it; `unread` where it looks like a formula and could not be read."""
    match value:
        case Quantity():
            return "number"
        case Named():
            return kind(value.value)
        case Relation():
            return "equation" if value.sign == "=" else "inequality"
        case Brackets():
            return "interval" if value.is_interval else "tuple"
        case Union():
            return "interval"
        case Several():
            return "list"
        case Words():
            return "unread" if value.has_formula else "words"
        case _:
            return type(value).__name__.lower()


def _is_infinite(value: Value) -> bool:
    return isinstance(value, Expression) and "infty" in symbols(value.tree)
