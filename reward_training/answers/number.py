"""The grammar of numbers in digits, and their exact values, for all modules in this folder that read numbers.

- The whole part is a run of digits, or digits in groups with commas between them: one to three digits first, then
  groups of two or three, and three in the last one (1,250,000 or 12,50,000). A run of digits and commas is grouped like
  that as a whole or it is a list: 1,2,345 and 12,3456 are no single numbers.
- Decimals are a point and at least one digit. A number may begin with its point (.5), but not right after a letter, a
  digit or another point.
- An exponent is e or E, a sign or none, and digits. One beyond MAX_EXPONENT is still part of the number, but the number
  has no value.
- A sign is part of the number unless it stands between operands: right after a letter, a digit or a closing bracket.

Two things depend on where a number stands, and are parameters of `unsigned`: spaces between groups, and a point without
decimals.
"""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction

MAX_EXPONENT = 1000
"""largest exponent of ten; a number with a larger one is no sensible answer and costs memory to write out"""
MAX_DIGITS = 4000
"""most digits of a number that is read as a fraction; Python by itself refuses to read more than 4300"""

GROUPED = r"(?<!\d)(?<!\d,)\d{1,3}(?:,\d{2,3})*,\d{3}(?!\d|,\d)"
"""digits in groups with commas between them"""
GROUPED_BY_SPACES = r"\d{1,3}(?: \d{3})+(?!\d)"
LEADING_POINT = r"(?<![\w.])\.\d+"
"""decimals without a whole part"""
EXPONENT = r"(?:[eE][-+]?\d+)?"
SIGN = r"(?:(?<![\w)\]}])[-+\u2212])?"


def unsigned(*, spaces: bool = False, open_point: bool = False) -> str:
    """The regular expression of a number without its sign.

    Args:
        spaces: groups may have spaces between them too (1 000 000). For a reader that takes 1 000 for one number;
            elsewhere in running text it is two that stand side by side.
        open_point: a point without decimals belongs to the number (5. cm). Elsewhere it ends a sentence.
    """
    grouped = f"{GROUPED}|{GROUPED_BY_SPACES}" if spaces else GROUPED
    decimals = r"(?:\.\d*)?" if open_point else r"(?:\.\d+)?"
    return rf"(?:(?:{grouped}|\d+){decimals}|{LEADING_POINT}){EXPONENT}"


NUMBER = re.compile(SIGN + unsigned())
ANY_NOTATION = re.compile(rf"{SIGN}\s*{unsigned(spaces=True, open_point=True)}")
"""the widest form that has a value"""


def as_fraction(written: str) -> Fraction | None:
    """The exact value of a number; None where the text is no number, or its exponent or digits are over the limits.

    >>> as_fraction("-1,250.50"), as_fraction("2.5e3"), as_fraction("1,00"), as_fraction("1e1001")
    (Fraction(-2501, 2), Fraction(2500, 1), None, None)
    """
    python_notation = _in_python_notation(written)
    return None if python_notation is None or len(python_notation) > MAX_DIGITS else Fraction(python_notation)


def as_decimal(written: str) -> Decimal | None:
    """The exact value as a decimal; None as for `as_fraction`, with another limit on digits.

    That limit is MAX_EXPONENT before the point, or zeros after it.

    >>> as_decimal("1,250.50"), as_decimal("9" * 1002)
    (Decimal('1250.50'), None)
    """
    python_notation = _in_python_notation(written)
    if python_notation is None:
        return None
    value = Decimal(python_notation)
    return value if abs(value.adjusted()) <= MAX_EXPONENT else None


def power_of_ten(exponent: str) -> Fraction | None:
    """Ten to a power that is written as a whole number; None where it is beyond MAX_EXPONENT."""
    digits = exponent.lstrip("+-0")
    if len(digits) > len(str(MAX_EXPONENT)) or abs(int(exponent)) > MAX_EXPONENT:
        return None
    return Fraction(10) ** int(exponent)


def num_decimals(written: str) -> int:
    """The number of digits after the decimal point."""
    return len(re.split("[eE]", written)[0].partition(".")[2])


def _in_python_notation(written: str) -> str | None:
    """The number as Fraction and Decimal read it; None where it is no number, or its exponent is too large."""
    if not ANY_NOTATION.fullmatch(written):
        return None
    compact = re.sub(r"[\s,]", "", written).replace("\u2212", "-")
    mantissa, _, exponent = compact.lower().partition("e")
    if power_of_ten(exponent or "0") is None:
        return None
    return mantissa.rstrip(".") + (f"e{exponent}" if exponent else "")
