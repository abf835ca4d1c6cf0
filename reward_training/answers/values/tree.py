"""The tree of a formula."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

PLUS_MINUS = ("pm", "mp")


@dataclass(frozen=True)
class Node:
    """A number, a symbol, or an operation on other nodes."""

    operation: str
    """number, symbol, one of + - * / ^ pm mp, or the name of a function; a function that is not known ends in (): f()"""
    arguments: tuple[Node, ...] = ()
    value: Fraction | None = None
    """of a number"""
    name: str = ""
    """of a symbol"""


def number(value: int | Fraction) -> Node:
    return Node("number", value=Fraction(value))


def symbol(name: str) -> Node:
    return Node("symbol", name=name)


def negative(tree: Node) -> Node:
    return Node("-", (number(0), tree))


INFINITY = symbol("infty")


def symbols(tree: Node) -> set[str]:
    """The names of the symbols of a tree."""
    return {tree.name} if tree.operation == "symbol" else set().union(*(symbols(part) for part in tree.arguments))


def is_unknown(tree: Node) -> bool:
    """Whether a tree is a variable, or an unknown function of one: x, f(x)."""
    return tree.operation == "symbol" or (tree.operation.endswith("()") and bool(symbols(tree)))


def has_both_signs(tree: Node) -> bool:
    r"""Whether a tree has a \pm or \mp."""
    return tree.operation in PLUS_MINUS or any(has_both_signs(part) for part in tree.arguments)


def with_sign(tree: Node, sign: int) -> Node:
    r"""The tree with + and - for each \pm and \mp, or with - and + where the sign is negative."""
    arguments = tuple(with_sign(part, sign) for part in tree.arguments)
    if tree.operation not in PLUS_MINUS:
        return Node(tree.operation, arguments, tree.value, tree.name)
    is_plus = (sign > 0) == (tree.operation == "pm")
    if arguments[0] == number(0):
        return arguments[1] if is_plus else negative(arguments[1])
    return Node("+" if is_plus else "-", arguments)


def written_number(tree: Node) -> Fraction | None:
    """The number that a tree writes out: a decimal, a fraction or a mixed number with its sign; None for anything else.

    3/4 is a number, 2^10 and 3 + 4 are expressions.
    """
    match tree.operation, tree.arguments:
        case "number", ():
            return tree.value
        case "-", (Node(value=zero), inner) if zero == 0:
            value = written_number(inner)
            return None if value is None else -value
        case "/", (top, bottom) if (high := _decimal(top)) is not None and (low := _decimal(bottom)):
            return high / low
        case "+", (Node(value=whole), Node(operation="/") as part) if whole is not None and whole.denominator == 1:
            fraction = written_number(part)
            return whole + fraction if fraction is not None and 0 < fraction < 1 else None
        case _:
            return None


UNDONE = ("+", "-", "*", "gcd", "lcm", "max", "min")


def is_undone(tree: Node) -> bool:
    """Whether some arithmetic of numbers is left to do in a tree: 17 + 25; not in 2^10, 5! or a mixed number."""
    if written_number(tree) is not None:
        return False
    is_negative = tree.operation == "-" and tree.arguments[0] == number(0)
    if tree.operation in UNDONE and not is_negative and not symbols(tree):
        return True
    return any(is_undone(part) for part in tree.arguments)


def _decimal(tree: Node) -> Fraction | None:
    return None if tree.operation == "/" else written_number(tree)
