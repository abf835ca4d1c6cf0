"""One spelling for each unit."""

from __future__ import annotations

import pytest

from reward_training.answers.values.units import canonical, is_known, unit_after

SAME = [
    ["m", "metre", "meters", "Meter"], ["m^2", "square metres", "sq m", "m^{2}", "metres squared"], ["mi/h", "mph", "miles per hour"],
    ["ft", "foot", "feet"], ["$", "dollar", "dollars"], ["°", "degrees", "deg"], ["%", "percent"], ["h", "hr", "hours"], ["", "units", "square units"],
    ["apple", "apples"], ["m/s", "metres per second"], ["cm^3", "cubic centimetres"], ["°c", "degrees Celsius", "°C"],
]  # fmt: skip


@pytest.mark.parametrize("spellings", SAME, ids=lambda group: group[0])
def test_spellings_of_one_unit(spellings: list[str]) -> None:
    assert {canonical(spelling) for spelling in spellings} == {spellings[0]}


def test_units_differ() -> None:
    assert len({canonical(group[0]) for group in SAME}) == len(SAME)
    assert canonical("MW") != canonical("mW")


@pytest.mark.parametrize("word", ["x", "y", "n", "a", "X", "T", "ab", "pi", "", "of"])
def test_variables_and_words_are_no_units(word: str) -> None:
    assert not is_known(word)


@pytest.mark.parametrize(
    ("text", "unit"),
    [(" feet long", " feet"), (" m.", " m"), ("m", ""), (" a day", ""), (" in all", ""), (" in.", " in"), ("x", ""), (" km/h", " km/h"), ("m²", "m²"), (" square miles of", " square miles"), ("", "")],
)  # fmt: skip
def test_unit_behind_a_number(text: str, unit: str) -> None:
    assert unit_after(text) == unit
