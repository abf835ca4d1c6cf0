"""One grammar of numbers, and that every reader of answers follows it."""

from __future__ import annotations

import time
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_training.answers.arithmetic import equations
from reward_training.answers.checkers import as_number
from reward_training.answers.finding.committed_number import committed_number
from reward_training.answers.finding.extraction import last_number
from reward_training.answers.number import (
    MAX_DIGITS,
    MAX_EXPONENT,
    NUMBER,
    as_decimal,
    as_fraction,
    num_decimals,
    power_of_ten,
)
from reward_training.answers.values.quantity import quantity

THAI = str.maketrans("0123456789", "๐๑๒๓๔๕๖๗๘๙")


def grouped_by_two(digits: str) -> str:
    """1234567 as 12,34,567."""
    head, tail = digits[:-3], digits[-3:]
    pairs = [head[max(end - 2, 0) : end] for end in range(len(head), 0, -2)]
    return ",".join([*reversed(pairs), tail])


def notations(value: int) -> list[str]:
    """One whole number as it may be written in running text."""
    digits, sign = str(abs(value)), "-" if value < 0 else ""
    bare = [
        digits, f"{abs(value):,}", grouped_by_two(digits), f"{digits}.0", f"{abs(value):,}.00", f"0{digits}",
        f"{digits}e0", f"{digits}0e-1", f"{digits}E+0", f"{digits[:-1] or '0'}.{digits[-1]}e1", digits.translate(THAI),
    ]  # fmt: skip
    return [sign + written for written in bare] + ([f"\u2212{digits}"] if value < 0 else [f"+{digits}"])


@given(st.integers(-(10**15), 10**15))
def test_every_notation_of_a_whole_number_has_its_value(value: int) -> None:
    for written in notations(value):
        assert NUMBER.fullmatch(written), written
        assert as_fraction(written) == value, written
        assert as_decimal(written) == value, written


@given(st.integers(0, 10**15), st.integers(1, 12))
def test_decimals_and_exponents_have_the_value_of_the_quotient(value: int, num_places: int) -> None:
    digits = str(value).rjust(num_places + 1, "0")
    plainly = f"{digits[:-num_places]}.{digits[-num_places:]}"
    for written in (plainly, plainly.lstrip("0"), f"{value}e-{num_places}"):
        assert as_fraction(written) == Fraction(value, 10**num_places), written
    assert num_decimals(plainly) == num_places
    assert num_decimals(f"{plainly}e5") == num_places
    assert num_decimals(str(value)) == 0


@given(st.decimals(allow_nan=False, allow_infinity=False, places=6))
def test_a_decimal_written_by_python_is_read_back(value: Decimal) -> None:
    assert as_decimal(str(value)) == value
    assert as_fraction(str(value)) == Fraction(value)


@given(st.integers(-(10**12), 10**12))
def test_all_readers_agree_on_a_number(value: int) -> None:
    for written in notations(value):
        assert last_number(f"It is {written}.") == written
        assert as_number(written) == value, written
        found = quantity(written)
        assert found is not None, written
        assert found.value == value, written
        committed = committed_number(f"It is {written}.")
        assert committed is not None, written
        assert as_fraction(committed) == value, written


@given(st.integers(0, 10**12), st.integers(0, 10**12))
def test_sums_are_checked_in_every_grouping(one: int, other: int) -> None:
    total = one + other
    for group in (str, "{:,}".format, lambda number: grouped_by_two(str(number))):
        assert equations(f"{group(one)} + {group(other)} = {group(total)}") == [True]
        assert equations(f"{group(one)} + {group(other)} = {group(total + 1)}") == [False]


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("1,2,345", "345"),  # one digit in the second group
        ("12,3456", "3456"),  # four in the last
        ("1,234,5", "5"),
        ("1,00", "00"),
        ("1234,567", "567"),  # four in the first
        ("5,", "5"),
    ],
)
def test_digits_and_commas_are_grouped_as_a_whole_or_a_list(text: str, last: str) -> None:
    assert last_number(text) == last
    assert not NUMBER.fullmatch(text)
    assert as_fraction(text) is None


@pytest.mark.parametrize(
    "text", ["", "-", ".", "e5", "1e", "five", "1/2", "1.2.3", "--5", "5-", "nan", "inf", "1_000", "0x10", "½"]
)
def test_other_texts_have_no_value(text: str) -> None:
    assert as_fraction(text) is None
    assert as_decimal(text) is None


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("5-3", "3"), ("(5)-3", "3"), ("[5]-3", "3"), ("x^{5}-3", "3"), ("x-3", "3"), ("5 -3", "-3"), ("= -3", "-3"),
        ("(-3", "-3"), ("\u22123", "\u22123"), ("5.-3", "-3"),
    ],
)  # fmt: skip
def test_a_sign_belongs_to_a_number_unless_it_stands_between_operands(text: str, number: str) -> None:
    assert last_number(text) == number


@pytest.mark.parametrize(
    ("text", "number"), [(".5", ".5"), ("-.5", "-.5"), ("x .5", ".5"), ("No.5", "5"), ("..5", "5")]
)
def test_a_number_may_begin_with_its_point_where_no_word_or_point_stands_before(text: str, number: str) -> None:
    assert last_number(text) == number


def test_spaces_between_groups_and_a_bare_point_depend_on_the_reader() -> None:
    """In running text 1 000 may be two numbers, and 5. the end of a sentence; a short answer is one number."""
    assert (last_number("1 000"), last_number("5. cm")) == ("000", "5")
    thousand, five = quantity("1 000"), quantity("5. cm")
    assert thousand is not None
    assert five is not None
    assert (thousand.value, five.value, five.unit) == (1000, 5, "cm")
    assert (as_fraction("1 000"), as_fraction("5."), as_fraction("- 5")) == (1000, 5, -5)
    assert as_fraction("1 00") is None


@pytest.mark.parametrize("sign", ["", "+", "-"])
def test_the_limit_on_exponents_is_one_for_all(sign: str) -> None:
    within, beyond = f"{sign}{MAX_EXPONENT}", f"{sign}{MAX_EXPONENT + 1}"
    power = Fraction(10) ** int(within)
    assert power_of_ten(within) == as_fraction(f"1e{within}") == as_decimal(f"1e{within}") == power
    for written in (f"1e{within}", f"10^{within}", f"1 * 10^{{{within}}}"):
        found = quantity(written)
        assert found is not None, written
        assert found.value == power, written
    for exponent in (beyond, sign + "9" * 5000):
        assert power_of_ten(exponent) is as_fraction(f"1e{exponent}") is as_decimal(f"1e{exponent}") is None
        assert quantity(f"1e{exponent}") is quantity(f"10^{exponent}") is quantity(f"2 x 10^{exponent}") is None
        assert as_number(f"1e{exponent}") is None
        assert last_number(f"x = 1e{exponent}") == f"1e{exponent}"
    assert as_fraction(f"1e{sign}0001") == Fraction(10) ** int(f"{sign}1")


def test_numbers_of_many_digits_have_a_value_up_to_the_limits() -> None:
    assert as_fraction("9" * MAX_DIGITS) == 10**MAX_DIGITS - 1
    assert as_fraction("9" * (MAX_DIGITS + 1)) is None
    assert as_decimal("9" * (MAX_EXPONENT + 1)) == 10 ** (MAX_EXPONENT + 1) - 1
    assert as_decimal("9" * (MAX_EXPONENT + 2)) is None
    assert as_decimal("0." + "0" * (MAX_EXPONENT - 1) + "1") == Decimal(f"1e-{MAX_EXPONENT}")
    assert as_decimal("0." + "0" * MAX_EXPONENT + "1") is None


@given(st.text(alphabet="0123456789,. eE+-\u2212٣\n", max_size=30))
def test_a_value_is_given_to_numbers_alone_and_nothing_raises(text: str) -> None:
    fraction, decimal = as_fraction(text), as_decimal(text)
    if decimal is not None:
        assert fraction == Fraction(decimal)
    if NUMBER.fullmatch(text) and "e" not in text.lower():
        assert fraction is not None
    if fraction is not None:
        assert text.strip()[-1] in "0123456789.٣"


@pytest.mark.parametrize("text", ["10," * 7000, "100," * 5000 + "1", "100," * 5000, "1 " * 9000, "1.1" * 7000, "1e1" * 7000, "1,2" * 7000])  # fmt: skip
def test_no_run_of_digits_takes_long(text: str) -> None:
    began = time.process_time()
    last_number(text)
    committed_number(text)
    equations(text)
    quantity(text)
    assert time.process_time() - began < 1
