"""Preference pairs from files: accepted formats, errors, and what a round draws from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.disk.rows import lines
from configs.errors import ConfigError
from configs.records import PreferencePair
from configs.schema.preferences import FileLabeler
from configs.schema.reward_models import TrainedRewardModel
from reward_training.preferences.reading import Preferences, draw_preferences, read_preferences

USER = {"role": "user", "content": "Say a"}


def says(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def read(path: Path, rows: list[Any], held_out_share: float = 0.25, **fields: Any) -> list[PreferencePair]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    labeler = FileLabeler(path=str(path), **fields)
    config = TrainedRewardModel(labeler=labeler, held_out_share=held_out_share)
    return read_preferences(labeler, name="taste", config=config, round_index=2).pairs


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Say a", "chosen": "a", "rejected": "b"},
        {"prompt": [USER], "chosen": [says("a")], "rejected": [says("b")]},
        {"prompt": [USER], "chosen": "a", "rejected": "b"},
        {"chosen": [USER, says("a")], "rejected": [USER, says("b")]},
        {"prompt": "Say a", "chosen": [USER, says("a")], "rejected": [USER, says("b")]},
    ],
)
def test_the_usual_forms_are_the_same_pair(row: dict[str, Any], tmp_path: Path) -> None:
    [pair] = read(tmp_path / "pairs.jsonl", [row])
    assert (pair.prompt, pair.chosen, pair.rejected) == ([USER], "a", "b")
    assert (pair.objective, pair.labeler, pair.sources, pair.round) == ("taste", "file", ("file", "file"), 2)


def test_columns_may_have_other_names_and_equal_responses_are_left_out(tmp_path: Path) -> None:
    rows = [{"q": "x", "good": "a", "bad": "b"}, {"q": "y", "good": "a", "bad": "a"}]
    pairs = read(tmp_path / "pairs.jsonl", rows, prompt="q", chosen="good", rejected="bad")
    assert [pair.prompt[0]["content"] for pair in pairs] == ["x"]


def test_a_prompt_is_on_one_side_alone(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i % 40}", "chosen": f"a{i}", "rejected": "b"} for i in range(120)]
    pairs = read(tmp_path / "pairs.jsonl", rows)
    sides: dict[str, set[str]] = {}
    for pair in pairs:
        sides.setdefault(pair.problem_key, set()).add(pair.split)
    assert all(len(side) == 1 for side in sides.values())
    assert {"train"} in sides.values()
    assert {"held_out"} in sides.values()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            {"prompt": "x", "chosen": "a"},
            r"line 1: no column 'rejected'; set labeler.rejected to one of 'chosen', 'prompt'",
        ),
        ({"prompt": 5, "chosen": "a", "rejected": "b"}, "line 1: the prompt is 5; it must be a text"),
        ({"prompt": "x", "chosen": 5, "rejected": "b"}, "chosen is 5; it must be a text or a conversation"),
        ({"chosen": "a", "rejected": "b"}, "no column 'prompt', and chosen and rejected are no two conversations"),
        ({"chosen": [says("a")], "rejected": [says("b")]}, "begin alike; set labeler.prompt"),
        ({"prompt": "x", "chosen": [USER], "rejected": "b"}, "ends with the assistant"),
        ({"prompt": "x", "chosen": "a", "rejected": "a"}, "holds no pair of two responses"),
    ],
)
def test_a_faulty_row_is_named_with_the_remedy(row: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        read(tmp_path / "pairs.jsonl", [row])


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    labeler = FileLabeler(path=str(tmp_path / "none.jsonl"))
    config = TrainedRewardModel(labeler=labeler)
    with pytest.raises(ConfigError, match=r"none.jsonl does not exist; set labeler.path"):
        read_preferences(labeler, name="taste", config=config, round_index=0)


def test_a_round_draws_as_large_a_share_of_both_sides(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i}", "chosen": "a", "rejected": "b"} for i in range(400)]
    pairs = read(tmp_path / "pairs.jsonl", rows)
    num_train = sum(pair.split == "train" for pair in pairs)
    first, second = (draw_preferences(pairs, max_pairs=num_train // 4, rng=np.random.default_rng(i)) for i in (0, 1))
    for drawn in (first, second):
        counts = [sum(pair.split == split for pair in drawn) for split in ("train", "held_out")]
        assert counts == pytest.approx([num_train / 4, (400 - num_train) / 4], abs=1)
        assert len({pair.problem_key for pair in drawn}) == len(drawn)
    assert first != second
    assert draw_preferences(pairs, max_pairs=1000, rng=np.random.default_rng(0)) == sorted(
        pairs, key=lambda pair: pair.split != "train"
    )


# ---- rows that repeat or contradict each other ----------------------------------------------------------------------


def labelled(*rows: tuple[str, str], prompt: str = "p") -> list[dict[str, str]]:
    return [{"prompt": prompt, "chosen": chosen, "rejected": rejected} for chosen, rejected in rows]


def read_all(path: Path, rows: list[dict[str, str]]) -> Preferences:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    labeler = FileLabeler(path=str(path))
    return read_preferences(labeler, name="taste", config=TrainedRewardModel(labeler=labeler), round_index=0)


@pytest.mark.parametrize(
    ("rows", "kept", "left_out"),
    [
        ([("a", "b"), ("b", "a")], [], {"contradicting": 2}),
        ([("a", "b"), ("a ", "b\n")], [("a", "b")], {"duplicate": 1}),
        ([("a", "b"), (" b", "a\n")], [], {"contradicting": 2}),
        ([("b", "a"), ("a", "b"), (" a", "b")], [("a", "b")], {"contradicting": 1, "duplicate": 1}),
        ([("a", "b"), ("b", "c"), ("c", "a")], [("a", "b"), ("b", "c"), ("c", "a")], {}),
        ([("a", "a "), ("", "b"), (" ", "b"), ("a", "")], [], {"equal": 1, "empty": 3}),
    ],
)
def test_labels_that_repeat_or_contradict_each_other_are_counted(
    rows: list[tuple[str, str]], kept: list[tuple[str, str]], left_out: dict[str, int], tmp_path: Path
) -> None:
    """The newest of two labels that contradict each other was once trained on, and nobody heard of the other."""
    read_back = read_all(tmp_path / "pairs.jsonl", [*labelled(*rows), *labelled(("x", "y"), prompt="other")])
    assert [(pair.chosen, pair.rejected) for pair in read_back.pairs] == [*kept, ("x", "y")]
    assert read_back.left_out == left_out
    assert read_back.num_rows == len(rows) + 1


def test_the_same_texts_to_another_prompt_contradict_nothing(tmp_path: Path) -> None:
    rows = [*labelled(("a", "b")), *labelled(("b", "a"), prompt="q"), *labelled(("b", "a"), prompt=" p\n")]
    read_back = read_all(tmp_path / "pairs.jsonl", rows)
    assert [pair.prompt[0]["content"] for pair in read_back.pairs] == ["q"]
    assert read_back.left_out == {"contradicting": 2}  # white space around a prompt makes it no other one


def test_a_file_without_a_pair_says_what_became_of_its_rows(tmp_path: Path) -> None:
    rows = [*labelled(("a", "a"), ("a", "b"), ("b", "a")), {"prompt": None, "chosen": "a", "rejected": "b"}]
    with pytest.raises(
        ConfigError,
        match=r"pairs.jsonl holds no pair of two responses \(4 rows; left out: 1 with a null, "
        r"1 with a response equal to another one, 2 that contradict another row\)",
    ):
        read_all(tmp_path / "pairs.jsonl", rows)


@pytest.mark.parametrize(
    "row", [{"prompt": None}, {"chosen": None}, {"rejected": None}, {"prompt": ""}, {"prompt": []}]
)
def test_a_row_with_nothing_in_it_does_not_stop_the_others(row: dict[str, Any], tmp_path: Path) -> None:
    read_back = read_all(tmp_path / "pairs.jsonl", [*labelled(("a", "b")), labelled(("c", "d"))[0] | row])
    assert [pair.chosen for pair in read_back.pairs] == ["a"]
    assert read_back.left_out == {"null" if None in row.values() else "empty": 1}


@pytest.mark.parametrize("field", ["prompt", "chosen", "rejected"])
def test_nan_is_nothing(field: str, tmp_path: Path) -> None:
    """A cell that pandas left empty stopped the run."""
    rows: list[Any] = [*labelled(("a", "b")), {**labelled(("c", "d"))[0], field: float("nan")}]
    read_back = read_all(tmp_path / "pairs.jsonl", rows)
    assert ([pair.chosen for pair in read_back.pairs], read_back.left_out) == (["a"], {"null": 1})


def test_nan_in_a_template_a_verdict_and_a_system_column_is_nothing(tmp_path: Path) -> None:
    nan = float("nan")
    row = {"ask": "Hi", "input": nan, "about": nan, "first": "a", "second": "b", "better": 1}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row | {"better": nan}) + "\n")
    labeler = FileLabeler.model_validate(
        {
            "path": str(tmp_path / "pairs.jsonl"),
            "prompt": "{ask}\n{input}",
            "system": "about",
            "chosen": None,
            "rejected": None,
            "responses": ["first", "second"],
            "better": {"column": "better", "values": [[1], [2]]},
        }
    )
    config = TrainedRewardModel(labeler=labeler)
    read_back = read_preferences(labeler, name="taste", config=config, round_index=0)
    assert [(pair.prompt, pair.chosen) for pair in read_back.pairs] == [([{"role": "user", "content": "Hi"}], "a")]
    assert read_back.left_out == {"unlabelled": 1}


# ---- rows that cannot be read ---------------------------------------------------------------------------------------

NARRATED = {"role": "narrator", "content": "Once"}
NOTHING = {"role": "user", "content": ""}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": [NARRATED]}, "unreadable"),
        ({"prompt": [{"role": "user", "content": None}]}, "unreadable"),
        ({"prompt": 5}, "unreadable"),
        ({"chosen": [USER, NARRATED]}, "unreadable"),
        ({"rejected": {"a": 1}}, "unreadable"),
        ({"chosen": [USER, {"role": "assistant", "content": None}]}, "no_response"),
        ({"prompt": [NOTHING]}, "empty"),
        ({"prompt": json.dumps([NOTHING])}, "empty"),
        ({"prompt": [{"role": "system", "content": " "}]}, "empty"),
        ({"prompt": [USER, says("Hi"), NOTHING]}, "empty"),
    ],
)
def test_one_row_that_holds_no_prompt_or_response_is_left_out_and_counted(
    row: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    """Such a row stopped the run, and a prompt in which the user said nothing was trained on."""
    rows: list[Any] = [*labelled(("a", "b")), {**labelled(("c", "d"))[0], **row}]
    read_back = read_all(tmp_path / "pairs.jsonl", rows)
    assert ([pair.chosen for pair in read_back.pairs], read_back.left_out) == (["a"], {reason: 1})


def test_conversations_in_which_the_user_says_nothing_are_left_out(tmp_path: Path) -> None:
    row = {"chosen": [NOTHING, says("a")], "rejected": [NOTHING, says("b")]}
    (tmp_path / "pairs.jsonl").write_text(
        json.dumps({"chosen": [USER, says("a")], "rejected": [USER, says("b")]}) + "\n" + json.dumps(row) + "\n"
    )
    labeler = FileLabeler(path=str(tmp_path / "pairs.jsonl"))
    config = TrainedRewardModel(labeler=labeler)
    read_back = read_preferences(labeler, name="taste", config=config, round_index=0)
    assert (len(read_back.pairs), read_back.left_out) == (1, {"empty": 1})


@pytest.mark.parametrize("score", ["1e400", "-1e400", "Infinity", "1" + "0" * 400, "1.7e308", '"inf"'])
def test_a_score_without_bound_is_left_out_and_counted(score: str, tmp_path: Path) -> None:
    """An infinite score passed every check, and the run died of a margin without a number."""
    row = '{"prompt": "p%d", "responses": ["a", "b"], "scores": [%s, -1]}\n'
    (tmp_path / "pairs.jsonl").write_text(row % (0, "3.5") + row % (1, score))
    labeler = FileLabeler.model_validate(
        {"path": str(tmp_path / "pairs.jsonl"), "responses": "responses", "score": "scores"}
    )
    config = TrainedRewardModel(labeler=labeler)
    read_back = read_preferences(labeler, name="taste", config=config, round_index=0)
    assert ([pair.margin for pair in read_back.pairs], read_back.left_out) == ([4.5], {"unreadable": 1})


def test_many_rows_that_cannot_be_read_are_refused_with_the_reason_of_the_first(tmp_path: Path) -> None:
    rows: list[Any] = [*labelled(("a", "b")), *({**labelled(("c", "d"))[0], "prompt": [NARRATED]} for _ in range(2))]
    with pytest.raises(
        ConfigError, match=r"2 of 3 rows cannot be read, for instance .* line 2: a message has the role"
    ):
        read_all(tmp_path / "pairs.jsonl", rows)


def test_rows_that_hold_no_texts_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text of 10 MB took gigabytes in the tokenizer, and half a character ended in a traceback there."""
    monkeypatch.setattr(lines, "MAX_CHARACTERS", 50)
    good = [{"prompt": f"p{i}", "chosen": "a", "rejected": "b"} for i in range(9)]
    bad = [
        good[0] | {"prompt": [{"role": "critic", "content": "x"}]},
        good[0] | {"chosen": "a" * 60},
        good[0] | {"prompt": "p" * 60},
        good[0] | {"rejected": float("inf")},
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text(
        "".join(json.dumps(row) + "\n" for row in [*good, *bad, {"prompt": "\ud83d", "chosen": "c\0", "rejected": "d"}])
    )
    labeler = FileLabeler(path=str(path))
    found = read_preferences(labeler, name="t", config=TrainedRewardModel(labeler=labeler), round_index=0)
    assert (len(found.pairs), found.left_out) == (10, {"unreadable": 4})
    assert (found.pairs[-1].prompt[0], found.pairs[-1].chosen) == ({"role": "user", "content": "\ufffd"}, "c\ufffd")


def test_conversations_that_a_table_holds_as_python_writes_them_are_read(tmp_path: Path) -> None:
    """pandas writes a list into a table so; the whole text was a response."""
    [pair] = read(tmp_path / "pairs.jsonl", [{"chosen": repr([USER, says("a")]), "rejected": repr([USER, says("b")])}])
    assert (pair.prompt, pair.chosen, pair.rejected) == ([USER], "a", "b")
