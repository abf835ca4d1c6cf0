"""Entries of reasoning-gym come back from JSON as they were, in value and type."""

import json
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.records import Problem
from reward_training.answers.entries import decoded, encoded


def kept(value: Any) -> Any:
    """The value after it stood in a problem file."""
    problem = Problem(key="k", prompt="?", answer="", source="s", split="train", meta={"entry": encoded(value)})
    return decoded(Problem.model_validate_json(problem.model_dump_json()).meta["entry"])


LEAVES: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary(),
    st.fractions(),
    st.decimals(allow_nan=False),
    st.complex_numbers(allow_nan=False),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.datetimes(),
)
KEYS = st.one_of(st.text("$ab"), st.integers(), st.floats(allow_nan=False), st.tuples(st.integers(), st.text("x")))
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(KEYS, inner, max_size=3),
        st.frozensets(st.integers(), max_size=3),
        st.sets(st.text("ab"), max_size=3),
    ),
    max_leaves=8,
)


@given(VALUES)
def test_value_and_types_come_back(value: Any) -> None:
    found = kept(value)
    assert found == value
    assert shape(found) == shape(value)


def shape(value: Any) -> Any:
    """The types of a value and of what it holds."""
    if isinstance(value, dict):
        return (dict, [(shape(key), shape(item)) for key, item in value.items()])
    if isinstance(value, list | tuple):
        return (type(value), [shape(item) for item in value])
    return type(value)


EAST = timezone(timedelta(hours=2))


@pytest.mark.parametrize(
    "value",
    [
        ((1, 2), (3, 4)),
        {1: "a", 2.5: "b", (0, 1): "c"},
        {"$tuple": [1]},  # looks like what a tuple becomes
        {"$": 1, "other": 2},
        10**400,
        -(2**63),
        float("inf"),
        Fraction(1, 3),
        Decimal("1.10"),
        OrderedDict(b=1, a=2),
        Counter("abca"),
        deque([1, (2,)]),
        range(1, 9, 2),
        datetime(2024, 2, 29, 23, 59, tzinfo=EAST),
        date(2024, 2, 29),
        time(23, 59, 1),
        np.float64(0.1),
        np.int32(7),
        np.bool_(True),
        np.str_("a"),
        np.float32("inf"),
    ],
    ids=repr,
)
def test_type_is_kept(value: Any) -> None:
    found = kept([value])[0]
    assert (found, type(found)) == (value, type(value))


def test_arrays_and_numbers_that_are_none_are_kept() -> None:
    array = kept(np.array([[1, 2], [3, 4]], dtype=np.int8))
    assert (array.dtype, array.tolist()) == (np.dtype(np.int8), [[1, 2], [3, 4]])
    assert repr(kept(float("nan"))) == "nan"


def test_entry_of_an_older_file_is_read_as_it_stands() -> None:
    entry = {"question": "?", "answer": "5", "metadata": {"difficulty": {"terms": [2, 6]}}}
    assert decoded(entry) == entry == encoded(entry)


def test_member_of_an_enumeration_of_the_library_is_kept() -> None:
    from reasoning_gym.logic.aiw import TaskType

    assert kept({"kind": TaskType.SIBLINGS}) == {"kind": TaskType.SIBLINGS}


def test_a_file_names_no_class_outside_of_the_library() -> None:
    for module, name in (("os", "environ"), ("enum", "Enum"), ("reasoning_gymnastics", "X")):
        with pytest.raises(ValueError, match="it may name those of reasoning_gym only"):
            decoded({"$enum": [module, name, "HOME"]})
    with pytest.raises(ValueError, match="which is no enumeration"):
        decoded({"$enum": ["reasoning_gym.logic.aiw", "AliceInWonderlandDataset", "x"]})


def test_value_of_another_type_is_refused_by_name() -> None:
    @dataclass
    class Board:
        size: int

    with pytest.raises(TypeError, match=r"a value of type .*Board"):
        encoded({"board": [Board(3)]})
    with pytest.raises(TypeError, match=r"a value of type builtins\.object"):
        encoded(object())


def test_encoding_is_json() -> None:
    assert json.dumps(encoded({"a": (1, {2: Fraction(1, 3)})})) == (
        '{"a": {"$tuple": [1, {"$dict": [[2, {"$Fraction": "1/3"}]]}]}}'
    )
