"""Compares an answer's unit with the one that its question asks for: kilometres are wrong where metres are wanted."""

from __future__ import annotations

import re

KINDS = {
    "length": "mm millimetre millimeter|cm centimetre centimeter|m metre meter|km kilometre kilometer|inch inches|ft foot feet|yd yard|mi mile",
    "mass": "mg milligram|g gram|kg kilogram kilo|t ton tonne|oz ounce|lb pound",
    "time": "ms millisecond|s sec second|min minute|h hr hour|day|week|month|year",
    "volume": "ml millilitre milliliter|l litre liter|gallon|pint|quart",
    "money": "$ dollar usd|cent|€ euro eur|£ gbp|¥ yen",
    "temperature": "°c celsius|°f fahrenheit|kelvin",
}
UNITS = {
    name: (kind, group.split()[0])
    for kind, groups in KINDS.items()
    for group in groups.split("|")
    for name in group.split()
}
"""each name of a unit: its kind, and the first of its names"""
ASKED = re.compile(r"\b(?:in|how many)\s+([a-z$€£¥°]+)", re.IGNORECASE)


def is_another_unit(unit: str, question: str) -> bool:
    """Whether `unit` differs from the last one of its kind that the question asks for; False for unknown units.

    >>> is_another_unit("km", "How wide is it in metres?"), is_another_unit("m", "How wide is it in metres?")
    (True, False)
    >>> is_another_unit("apples", "How many minutes?"), is_another_unit("cents", "What is the price in dollars?")
    (False, True)
    """
    given = _known(unit)
    if given is None:
        return False
    wanted = [known for name in ASKED.findall(question) if (known := _known(name)) is not None and known[0] == given[0]]
    return bool(wanted) and wanted[-1] != given


def _known(name: str) -> tuple[str, str] | None:
    """The kind and the first name of a unit, in singular or plural; None where it is unknown."""
    lowered = name.lower()
    return UNITS.get(lowered) or UNITS.get(lowered.removesuffix("s"))
