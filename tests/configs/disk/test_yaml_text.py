"""What YAML takes in silence and a configuration must not."""

from typing import Any

import pytest
import yaml

from configs.disk import yaml_text
from configs.disk.yaml_text import parsed


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rounds: 1\nseed: 2\nrounds: 3\n", ("the key 'rounds' stands twice, first in line 1", "line 3, column 1")),
        ("a:\n  - {lr: 1, 'lr': 2}\n", ("the key 'lr' stands twice, first in line 2", "line 2, column 13")),
        ("a: b\nc: &x [1, *x]\n", ("*x stands in what it repeats", "line 2, column 11")),
        ('a: 1\nb: "so \\udc0f"\n', ("holds '\\udc0f', which is no character of a text", "line 2, column 4")),
        ('"k\\0": 1\n', ("'k\\x00' holds '\\x00'", "line 1, column 1")),
        ("a:\n  " + "[" * 60 + "]" * 60, ("nested in more than 50 mappings and lists", "line 2, column 53")),
        ("a: " + "{b: " * 400 + "}" * 400, ("nested in more than 50",)),
        ("day: 2026-13-01\n", ("'2026-13-01' is no timestamp", "line 1, column 6")),
        ("n: 1" + "0" * 5000, ("is no int", "line 1, column 4")),
    ],
)
def test_what_is_meant_by_nobody_is_refused_by_line(text: str, words: tuple[str, ...]) -> None:
    """A key that stands twice had its last value; half a character ended in a traceback when a prompt was encoded."""
    with pytest.raises(yaml.YAMLError) as refusal:
        parsed(text)
    assert [word for word in words if word not in str(refusal.value)] == []


def test_halves_of_a_character_that_stand_side_by_side_are_one() -> None:
    assert parsed('a: "\\ud83d\\ude00!"') == {"a": "\U0001f600!"}


def test_an_alias_counts_as_often_as_it_repeats_values(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "a: &a [1, 2]\nb: &b [*a, *a]\nc: [*b, *b]\n"
    # mapping 1, keys 3; a: 1 + 2 = 3; b: 1 + 2 x 3 = 7; c: 1 + 2 x 7 = 15
    monkeypatch.setattr(yaml_text, "MAX_VALUES", 29)
    value: Any = parsed(text)
    assert value["c"] == [[[1, 2], [1, 2]], [[1, 2], [1, 2]]]
    monkeypatch.setattr(yaml_text, "MAX_VALUES", 28)
    with pytest.raises(yaml.YAMLError, match=r"more than 28 values, with those that aliases repeat(.|\n)*line 3"):
        parsed(text)


def test_a_merged_mapping_may_be_overridden() -> None:
    assert parsed("base: &b {x: 1, y: 2}\nc: {<<: *b, x: 3}\n")["c"] == {"x": 3, "y": 2}
