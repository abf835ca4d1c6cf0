"""Decides whether two formulas are equal, by their values at random points.

Rational arithmetic is exact; everything else has 50 digits. Expressions that agree at points drawn at random are equal,
but for a chance that can be neglected (for polynomials: Schwartz 1980, Zippel 1979). Nothing here is unbounded: a power
or factorial that would be too large is refused before it is computed.
"""

from __future__ import annotations

import functools
import math
import operator
import random
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any

import mpmath

from reward_training.answers.values.tree import Node, symbols

Value = Any
"""Fraction where it is exact, else mpmath's mpf or mpc"""
Point = dict[str, Fraction]

DIGITS = 50
TOLERANCE = 1e-30
"""relative difference of two values that are called equal"""
MAX_BITS = 20_000
"""of an exact power; a larger one becomes a floating-point number"""
MAX_LOGARITHM = 10**6
"""base-2 logarithm of the largest power"""
MAX_FACTORIAL = 3_000
NUM_POINTS, NUM_NEAR_POINTS = 8, 5
"""random points, and those of them whose coordinates are at most 4; they are at most 200 at the others"""
NUM_REAL_POINTS = 2
"""points at which both sides have to be real; with fewer, complex values are compared"""
CONSTANTS = {"pi", "e", "i", "infty", "°"}


class NoValueError(ArithmeticError):
    """An expression has no value at a point, or one that is too large."""


def is_same(one: Node, other: Node) -> bool:
    """Whether two expressions are equal wherever both are real."""
    return one == other or _all_agree(one, other, _close)


def is_multiple(one: Node, other: Node, *, positive: bool = False) -> bool:
    """Whether one expression is the other times a constant that is not zero: 2x - 4 = 0 says the same as x = 2."""
    if not (symbols(one) | symbols(other)) - CONSTANTS:
        return False  # numbers are no equation
    ratios: list[Value] = []

    def agree(a: Value, b: Value) -> bool:
        if _is_zero(a) or _is_zero(b):
            return _is_zero(a) and _is_zero(b)
        ratios.append(_arithmetic(operator.truediv)(a, b))
        return _close(ratios[0], ratios[-1])

    return _all_agree(one, other, agree) and bool(ratios) and (not positive or ratios[0] > 0)


def constant(tree: Node) -> Value | None:
    """The value of an expression without variables; None where it has some, or no value."""
    try:
        return None if symbols(tree) - CONSTANTS else value_at(tree, {})
    except NoValueError:
        return None


def value_at(tree: Node, point: Point) -> Value:
    """The value of an expression where its variables have the values of `point`.

    Raises:
        NoValueError: it has none, or one that is too large.
    """
    with mpmath.workdps(DIGITS):
        try:
            return _value(tree, point)
        except (ZeroDivisionError, ValueError, OverflowError, TypeError) as error:
            raise NoValueError(str(error)) from error


def _all_agree(one: Node, other: Node, agree: Callable[[Value, Value], bool]) -> bool:
    """Whether `agree` holds for the two values at each point where both are real; at all points if those are few."""
    names = sorted((symbols(one) | symbols(other)) - CONSTANTS)
    pairs = list(_values(one, other, names))
    real = [pair for pair in pairs if all(_is_real(value) for value in pair)]
    with mpmath.workdps(DIGITS):
        if len(real) >= NUM_REAL_POINTS:
            return all(agree(*pair) for pair in real)
        return len(pairs) >= (NUM_REAL_POINTS if names else 1) and all(agree(*pair) for pair in pairs)


def _values(one: Node, other: Node, names: list[str]) -> Iterable[tuple[Value, Value]]:
    """The values of both expressions at random points, the same ones at every call; those without values are left out.

    Variables are positive at even points, and of either sign at odd ones.
    """
    for index in range(NUM_POINTS if names else 1):
        draw = random.Random(f"{index} {names}")
        signs = (1, -1) if index % 2 else (1, 1)
        size = 50 if index >= NUM_NEAR_POINTS else 1
        point = {name: draw.choice(signs) * size * Fraction(draw.randint(1, 4000), 997) for name in names}
        try:
            yield value_at(one, point), value_at(other, point)
        except NoValueError:
            continue


def _close(a: Value, b: Value) -> bool:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a == b
    left, right = _floating(a), _floating(b)
    if mpmath.isinf(left) or mpmath.isinf(right):
        return bool(left == right)
    return bool(abs(left - right) <= TOLERANCE * max(1, abs(left), abs(right)))


def _is_zero(a: Value) -> bool:
    return bool(a == 0 if isinstance(a, Fraction) else abs(a) < TOLERANCE)


def _is_real(a: Value) -> bool:
    return bool(abs(mpmath.im(_floating(a))) <= TOLERANCE * max(1, abs(_floating(a))))


def _floating(a: Value) -> Value:
    return mpmath.mpf(a.numerator) / a.denominator if isinstance(a, Fraction) else a


# ---- operations -----------------------------------------------------------------------------------------------------


def _value(tree: Node, point: Point) -> Value:
    if tree.operation == "number":
        return tree.value
    if tree.operation == "symbol":
        return point[tree.name] if tree.name in point else _constant(tree.name)
    arguments = [_value(part, point) for part in tree.arguments]
    if tree.operation in OPERATIONS:
        return OPERATIONS[tree.operation](*arguments)
    return _unknown(tree.operation, arguments)


def _constant(name: str) -> Value:
    values = {"pi": mpmath.pi, "e": mpmath.e, "i": mpmath.mpc(0, 1), "infty": mpmath.inf, "°": mpmath.pi / 180}
    return +values[name]


def _unknown(name: str, arguments: list[Value]) -> Value:
    """The value of a function that is not known: any, but the same for the same arguments."""
    seed = " ".join([name, *(mpmath.nstr(_floating(value), 20) for value in arguments)])
    return Fraction(random.Random(seed).randint(1, 10**6), 997)


def _arithmetic(operation: Callable[[Value, Value], Value]) -> Callable[[Value, Value], Value]:
    """The operation, exact where both sides are."""

    def apply(a: Value, b: Value) -> Value:
        if isinstance(a, Fraction) and isinstance(b, Fraction):
            return operation(a, b)
        return operation(_floating(a), _floating(b))

    return apply


def _floats(function: Callable[[Value], Value]) -> Callable[[Value], Value]:
    return lambda x: function(_floating(x))


def _whole_numbers(function: Callable[[int, int], int]) -> Callable[..., Value]:
    """The function of two whole numbers, applied to any number of them."""

    def apply(*values: Value) -> Value:
        if not all(isinstance(value, Fraction) and value.denominator == 1 for value in values):
            raise ValueError("whole numbers are needed")
        return Fraction(functools.reduce(function, [int(value) for value in values]))

    return apply


def _power(base: Value, exponent: Value) -> Value:
    if _is_zero(base):
        if mpmath.re(_floating(exponent)) <= 0:
            raise ValueError("zero to the power of zero, or of less")
        return Fraction(0)
    size = abs(mpmath.log(abs(_floating(base)), 2)) * abs(_floating(exponent))
    if not size <= MAX_LOGARITHM:
        raise OverflowError("the power is too large")
    if isinstance(base, Fraction) and isinstance(exponent, Fraction):
        if exponent.denominator == 1 and _bits(base) * abs(exponent) <= MAX_BITS:
            return base ** int(exponent)
        if base < 0 and exponent.denominator % 2:  # the real root of a negative number
            return (-1) ** exponent.numerator * mpmath.power(_floating(-base), _floating(exponent))
    return mpmath.power(_floating(base), _floating(exponent))


def _bits(x: Fraction) -> int:
    return max(x.numerator.bit_length(), x.denominator.bit_length())


def _square_root(x: Value) -> Value:
    if isinstance(x, Fraction) and x >= 0 and x.numerator.bit_length() < MAX_BITS:
        top, bottom = math.isqrt(x.numerator), math.isqrt(x.denominator)
        if Fraction(top**2, bottom**2) == x:
            return Fraction(top, bottom)
    return mpmath.sqrt(_floating(x))


def _factorial(n: Value) -> Value:
    if abs(_floating(n)) > MAX_FACTORIAL:
        raise OverflowError("the factorial is too large")
    if isinstance(n, Fraction) and n.denominator == 1:
        return Fraction(math.factorial(int(n)))
    return mpmath.gamma(_floating(n) + 1)


def _binomial(n: Value, k: Value) -> Value:
    if max(abs(_floating(n)), abs(_floating(k))) > MAX_FACTORIAL:
        raise OverflowError("the binomial coefficient is too large")
    return mpmath.binomial(_floating(n), _floating(k))


def _exponential(x: Value) -> Value:
    if not abs(_floating(x)) <= MAX_LOGARITHM:
        raise OverflowError("the exponential is too large")
    return mpmath.exp(_floating(x))


def _logarithm(x: Value) -> Value:
    if _is_zero(x):
        raise ValueError("zero has no logarithm")
    return mpmath.log(_floating(x))


def _periodic(function: Callable[[Value], Value]) -> Callable[[Value], Value]:
    """A trigonometric function, of arguments that 50 digits can tell apart."""

    def apply(x: Value) -> Value:
        if not abs(_floating(x)) <= MAX_LOGARITHM:
            raise OverflowError("the angle is too large")
        return function(_floating(x))

    return apply


OPERATIONS: dict[str, Callable[..., Value]] = {
    "+": _arithmetic(operator.add),
    "-": _arithmetic(operator.sub),
    "*": _arithmetic(operator.mul),
    "/": _arithmetic(operator.truediv),
    "^": _power,
    "factorial": _factorial,
    "binom": _binomial,
    "sqrt": _square_root,
    "root": lambda x, degree: _power(x, _arithmetic(operator.truediv)(Fraction(1), degree)),
    "abs": abs,
    "exp": _exponential,
    "ln": _logarithm,
    "log": lambda x: _logarithm(x) / mpmath.log(10),
    "floor": _floats(mpmath.floor),
    "ceil": _floats(mpmath.ceil),
    "Re": _floats(mpmath.re),
    "Im": _floats(mpmath.im),
    "arg": _floats(mpmath.arg),
    "gcd": _whole_numbers(math.gcd),
    "lcm": _whole_numbers(math.lcm),
    "max": max,
    "min": min,
    **{name: _periodic(getattr(mpmath, name)) for name in ("sin", "cos", "tan", "cot", "sec", "csc")},
    **{name: _periodic(getattr(mpmath, name)) for name in ("sinh", "cosh", "tanh")},
    **{f"arc{name}": _floats(getattr(mpmath, f"a{name}")) for name in ("sin", "cos", "tan")},
}
