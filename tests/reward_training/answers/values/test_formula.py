"""Formulas: what is parsed, what is not, and that two are equal where a computer algebra system says so."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_training.answers.values.evaluation import NoValueError, constant, is_multiple, is_same, value_at
from reward_training.answers.values.formula import parsed
from reward_training.answers.values.tokens import NotAFormulaError
from reward_training.answers.values.tree import written_number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2 + 3 * 4", 14), ("2 - 3 - 4", -5), ("12 / 2 / 3", 2), ("-2^2", -4), ("2^3^2", 512), ("2 * -3", -6), ("(2 + 3)(4)", 20), (r"\frac12", "1/2"),
        (r"\frac{1}{2} \cdot 4", 2), (r"2\frac{1}{3}", "7/3"), (r"\frac 3 4", "3/4"), (r"\sqrt{16}", 4), (r"\sqrt[3]{-8}", -2), ("|3 - 5|", 2), ("2|-3|", 6),
        ("5!", 120), (r"\binom{6}{2}", 15), (r"\lfloor 7/2 \rfloor", 3), (r"\log_2 8", 3), (r"\log 1000", 3), (r"\cos 60^\circ", "1/2"), (r"\gcd(12, 18)", 6),
        ("1.5e3", 1500), (".25", "1/4"), (r"\sin\frac{\pi}{6}", "1/2"), (r"\ln e^2", 2), ("i^2", -1), (r"2 \div 8", "1/4"), ("√9", 3), ("2π - 2\\pi", 0),
    ],
)  # fmt: skip
def test_value_of_a_formula(text: str, value: int | str) -> None:
    assert is_same(parsed(text), parsed(str(value)))
    assert not is_same(parsed(text), parsed(f"{value} + 1"))


@pytest.mark.parametrize(
    "text",
    ["", "2 +", "(2", "2)", "3 4", "2..5", r"\frac{1", r"\int x", "apples", "2 = 2", "1, 2", "^2", "x_{", r"\unknown{2}", "|x", "2 ∪ 3", "'"],
)  # fmt: skip
def test_what_is_not_a_formula_as_a_whole_is_refused(text: str) -> None:
    with pytest.raises(NotAFormulaError):
        parsed(text)


@pytest.mark.parametrize(("text", "number"), [("3/4", "3/4"), ("-2.5", "-5/2"), (r"2\frac12", "5/2"), ("2^2", None), ("1 + 1", None), ("6/4/2", None), ("x", None)])  # fmt: skip
def test_numbers_that_are_written_out(text: str, number: str | None) -> None:
    assert written_number(parsed(text)) == (None if number is None else Fraction(number))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"\sin 2x", r"2 \sin x \cos x"), (r"e^{x + y}", "e^x e^y"), (r"\sqrt{8}", r"2\sqrt2"), (r"\ln(x^2)", r"2 \ln x"), (r"\frac{1}{\sqrt3}", r"\frac{\sqrt3}{3}"),
        ("n!", "n (n-1)!"), (r"x_{1} + x_2", "x_2 + x_1"), (r"\mathrm{k}_{\mathrm{B}}", "k_B"), ("f(x+1)", "f(1+x)"), ("v^2_0", "v_0^2"), (r"|x|", r"\sqrt{x^2}"),
        (r"\tan^{-1} x", r"\arctan x"), (r"\frac{x^2 - 1}{x - 1}", "x + 1"),
    ],
)  # fmt: skip
def test_formulas_that_say_the_same(one: str, other: str) -> None:
    assert is_same(parsed(one), parsed(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [("x", "y"), ("|x|", "x"), ("x^2", "x^3"), ("f(x)", "f(y)"), ("f(x)", "g(x)"), ("x_1", "x_2"), (r"\infty", r"-\infty"), (r"\infty", "10^{99}"), (r"\lfloor x \rfloor", "0"), (r"\sqrt{x}", "x")],
)  # fmt: skip
def test_formulas_that_do_not(one: str, other: str) -> None:
    assert not is_same(parsed(one), parsed(other))


def test_equations_may_be_multiplied_by_a_constant() -> None:
    assert is_multiple(parsed("2x - 4"), parsed("x - 2"))
    assert is_multiple(parsed("2 - x"), parsed("x - 2"))
    assert not is_multiple(parsed("2 - x"), parsed("x - 2"), positive=True)
    assert not is_multiple(parsed("x(x - 2)"), parsed("x - 2"))
    assert not is_multiple(parsed("0"), parsed("0"))


@pytest.mark.parametrize(
    "text",
    ["2^{1000001}", "(1/2)^{2000001}", "4000!", r"e^{2000000}", r"\binom{4000}{2}", "0^0", "1/0", "0^{-1}", r"\ln 0"],
)
def test_what_has_no_value_or_one_that_is_too_large_is_told_at_once(text: str) -> None:
    began = time.perf_counter()
    with pytest.raises(NoValueError):
        value_at(parsed(text), {})
    assert constant(parsed(text)) is None
    assert time.perf_counter() - began < 0.1


POLYNOMIAL = st.recursive(
    st.sampled_from(["x", "y", "2", "3", "7"]),
    lambda inner: st.builds("({} {} {})".format, inner, st.sampled_from(["+", "-", "*"]), inner) | st.builds("({})^2".format, inner),
    max_leaves=6,
)  # fmt: skip


@given(one=POLYNOMIAL, other=POLYNOMIAL)
@settings(deadline=None)
def test_polynomials_are_equal_where_sympy_says_so(one: str, other: str) -> None:
    def expanded(text: str) -> sympy.Expr:
        return sympy.expand(sympy.sympify(text.replace("^", "**")))

    assert is_same(parsed(one), parsed(other)) == (expanded(one) == expanded(other))
    assert is_same(parsed(one), parsed(str(expanded(one)).replace("**", "^")))


@given(st.text(alphabet="0123456789xyi+-*/^_!(){}[]|\\. ,=", max_size=80))
@settings(deadline=None)
def test_any_text_is_parsed_or_refused_and_compared_in_no_time(text: str) -> None:
    began = time.perf_counter()
    try:
        tree = parsed(text)
    except NotAFormulaError:
        return
    assert is_same(tree, parsed(text))
    is_same(tree, parsed("x + 1"))
    assert time.perf_counter() - began < 5
