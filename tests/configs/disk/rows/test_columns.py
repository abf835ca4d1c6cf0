import pytest

from configs.disk.rows.columns import MISSING, column, lookup
from configs.errors import ConfigError

ROW = {
    "reward_model": {"ground_truth": "34", "style": "rule"},
    "extra_info": '{"question": "How many?", "tags": ["a", "b"]}',
    "a.b": "a name with a dot",
    "a": {"b": "inside"},
    "x.y": {"z": 1},
    "turns": [{"value": "first"}, {"value": "second"}],
    "none": None,
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("reward_model.ground_truth", "34"),
        ("extra_info.question", "How many?"),
        ("extra_info.tags.1", "b"),
        ("a.b", "a name with a dot"),
        ("x.y.z", 1),
        ("turns.0.value", "first"),
        ("turns.-1.value", "second"),
        ("turns.value", ["first", "second"]),
        ("none", None),
    ],
)
def test_a_path_leads_into_a_column(path: str, value: object) -> None:
    assert column(ROW, path, "columns.answer", "a.jsonl line 1") == value


@pytest.mark.parametrize(
    "path", ["none.x", "turns.5.value", "turns.role", "reward_model.x", "a.c", "extra_info.tags.x"]
)
def test_a_path_that_leads_nowhere_is_missing(path: str) -> None:
    assert lookup(ROW, path) is MISSING


def test_a_missing_column_is_named_with_those_that_are_there() -> None:
    with pytest.raises(
        ConfigError,
        match=r"line 1: no column 'reward_model.gold'; set columns.answer to one of .*'reward_model.ground_truth', 'reward_model.style'",
    ):
        column(ROW, "reward_model.gold", "columns.answer", "a.jsonl line 1")


def test_half_a_character_in_json_within_a_text_is_replaced() -> None:
    assert lookup({"info": '{"question": "a \\ud83d b"}'}, "info.question") == "a \ufffd b"
