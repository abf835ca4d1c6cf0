"""Which of several responses is better: every way to say it, both ways round."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import ConfigError
from reward_training.pairs.building import choose
from reward_training.preferences.reading import _Candidate, _extremes
from tests.reward_training.preferences.conftest import Read, texts

TWO = {"responses": ["a", "b"]}


@pytest.mark.parametrize(
    ("fields", "first", "second"),
    [
        ({"better": {"column": "v", "values": [1, 0]}}, 1, 0),
        ({"better": {"column": "v", "values": [1, 0]}}, "1", "0.0"),
        ({"better": {"column": "v", "values": [True, False]}}, True, "False"),
        ({"better": {"column": "v", "values": [True, False]}}, "yes", "no"),  # YAML reads yes and no as truth values
        ({"better": {"column": "v", "values": [0, 1]}}, False, True),
        ({"better": {"column": "v", "values": ["left", "right"]}}, " left", "right"),
        ({"better": {"column": "v", "values": [[-3, -2, -1], [1, 2, 3]]}}, -2, 3.0),
        ({"better": {"column": "v", "negative": "first"}}, -0.25, "3"),
        ({"better": {"column": "v", "negative": "second"}}, 2, -1),
        ({"score": ["v.0", "v.1"]}, [2, 1], ["0.5", "1.5"]),
        ({"score": ["v.x", "v.y"]}, {"x": True, "y": False}, {"x": False, "y": True}),
        ({"rank": ["v.0", "v.1"]}, [1, 2], [4.0, 1.0]),
        ({"score": ["v.0", "v.1"], "score_values": {"good": 2, "fair": 1.5, 0: -1}}, ["good", "fair"], ["0", "fair"]),
    ],
)
def test_each_way_to_say_which_is_better_holds_both_ways_round(
    read: Read, fields: dict[str, Any], first: Any, second: Any
) -> None:
    rows = [{"prompt": "p", "a": "A1", "b": "B1", "v": first}, {"prompt": "p", "a": "A2", "b": "B2", "v": second}]
    assert texts(read(rows, **TWO, **fields)) == [("A1", "B1"), ("B2", "A2")]


@pytest.mark.parametrize(
    ("verdict", "fields", "words"),
    [
        (
            2,
            {"better": {"column": "v", "values": [1, 0]}},
            "line 1: 'v' is 2, which labeler.better does not name; add it",
        ),
        ("A", {"better": {"column": "v", "values": ["a", "b"]}}, "'v' is 'A', which labeler.better does not name"),
        ([1], {"better": {"column": "v", "values": [1, 0]}}, r"'v' is \[1\], which labeler.better does not name"),
        (
            "A",
            {"better": {"column": "v", "negative": "first"}},
            "'v' is 'A', no number; name a column with numbers, or",
        ),
        (
            "high",
            {"score": ["v", "w"]},
            "'high', no number; name a column with numbers, or say in labeler.score_values",
        ),
        ("1st", {"rank": ["v", "w"]}, "'1st', no number; name a column with numbers$"),
        (1, {"score": ["v", "z"]}, "no column 'z'; set labeler.score to one of"),
        (1, {"better": {"column": "z", "values": [1, 0]}}, "no column 'z'; set labeler.better.column to one of"),
    ],
)
def test_a_verdict_without_a_meaning_stops_and_names_the_row(
    read: Read, verdict: Any, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        read([{"prompt": "p", "a": "x", "b": "y", "v": verdict, "w": 1}], **TWO, **fields)


@pytest.mark.parametrize("missing", [None, "", float("nan")])
def test_a_row_without_a_verdict_is_left_out(read: Read, missing: Any) -> None:
    rows = [{"prompt": "p", "a": f"x{i}", "b": f"y{i}", "v": v, "w": 0} for i, v in enumerate((1, missing))]
    for fields in ({"score": ["v", "w"]}, {"better": {"column": "v", "negative": "second"}}):
        found = read(rows, **TWO, **fields)
        assert (texts(found), found.left_out) == ([("x0", "y0")], {"unlabelled": 1})


def test_ties_and_small_margins_are_left_out(read: Read) -> None:
    rows = [{"prompt": "p", "a": f"x{v}", "b": f"y{v}", "v": v, "zero": 0} for v in (-3, -1, 0, 1, 2)]
    by_sign = {"better": {"column": "v", "negative": "first"}, "min_margin": 2}
    by_score = {"score": ["zero", "v"], "min_margin": 2}
    for fields in (by_sign, by_score):
        found = read(rows, **TWO, **fields)
        assert texts(found) == [("x-3", "y-3"), ("y2", "x2")]
        assert [pair.margin for pair in found.pairs] == [3.0, 2.0]
        assert found.left_out == {"tie": 3}
    named = {"better": {"column": "v", "values": [[-3], [2, 1]], "tie": [0, -1]}}
    assert read(rows, **TWO, **named).left_out == {"tie": 2}


def test_the_best_of_a_list_is_better_than_the_others(read: Read) -> None:
    rows = [{"prompt": "p", "answers": ["w", "x", "y", "z"], "best": 2}]
    better = {"column": "best", "values": [0, 1, 2, 3]}
    assert texts(read(rows, responses="answers", better=better)) == [("y", "w"), ("y", "x"), ("y", "z")]
    with pytest.raises(ConfigError, match=r"4 responses, and labeler.better tells 2 apart; give a value for each"):
        read(rows, responses="answers", better={"column": "best", "values": [0, 1]})


def test_a_list_makes_few_pairs_of_wide_margins(read: Read) -> None:
    row = {"prompt": "p", "answers": [{"text": f"t{i}", "rank": i} for i in (3, 1, 5, 2, 4)]}
    found = read([row], responses="answers.text", rank="answers.rank", pairs_per_problem=2)
    assert texts(found) == [("t1", "t5"), ("t2", "t4")]
    assert [pair.margin for pair in found.pairs] == [4.0, 2.0]


def test_a_response_of_a_list_without_text_or_rank_is_left_out_alone(read: Read) -> None:
    answers = [
        {"text": "a", "rank": 1},
        {"text": None, "rank": 2},
        {"text": " ", "rank": 3},
        {"text": "b", "rank": None},
    ]
    rows = [
        {"prompt": "p", "answers": [*answers, {"text": "c", "rank": 4}]},
        {"prompt": "p", "answers": []},
        {"prompt": "p", "answers": None},
        {"prompt": "p", "answers": answers[:1]},
    ]
    found = read(rows, responses="answers.text", rank="answers.rank")
    assert texts(found) == [("a", "c")]
    assert found.left_out == {"null": 2, "empty": 1, "unlabelled": 1, "unpaired": 2}
    with pytest.raises(ConfigError, match=r"'p' holds 'x', no list; name a column with a list in labeler.responses"):
        read([{"prompt": "p", "p": "x", "s": [1]}], responses="p", score="s")
    with pytest.raises(ConfigError, match=r"2 responses and 1 values of 's'; labeler.score needs one for each"):
        read([{"prompt": "p", "r": ["x", "y"], "s": [1]}], responses="r", score="s")


def test_good_and_bad_labels_pair_within_a_prompt(read: Read) -> None:
    rows = [
        {"prompt": prompt, "completion": text, "label": label}
        for prompt, text, label in [
            ("p", "g1", True), ("p", "b1", False), ("q", "g", True), ("p ", "b2", False), ("r", "b", False), ("p", "g2", True),
        ]
    ]  # fmt: skip
    found = read(rows, response="completion", score="label")
    assert texts(found) == [("g1", "b1"), ("g2", "b2"), ("g1", "b2"), ("g2", "b1")]
    assert found.left_out == {"unpaired": 2}
    signed = [row | {"label": 1 if row["label"] else -1} for row in rows]
    assert texts(read(signed, response="completion", score="label")) == texts(found)


def test_labels_of_one_kind_only_make_no_pair(read: Read) -> None:
    rows = [{"prompt": f"p{i}", "completion": "x", "label": i % 2 == 0} for i in range(6)]
    with pytest.raises(
        ConfigError,
        match=r"holds no pair of two responses \(6 rows; left out: 6 without a better or worse response to the same prompt\)",
    ):
        read(rows, response="completion", score="label")


def test_a_csv_of_labels(read: Read) -> None:
    table = "prompt,one,two,label\np,x,y,2\nq,x,y,1\nr,x,y,\n"
    found = read(table, file="pairs.csv", responses=["one", "two"], better={"column": "label", "values": [1, 2]})
    assert (texts(found), found.left_out) == ([("y", "x"), ("x", "y")], {"unlabelled": 1})


@given(st.lists(st.integers(0, 6), min_size=1, max_size=24), st.integers(1, 4), st.integers(1, 3))
def test_the_extremes_have_the_pairs_of_all(values: list[int], most: int, margin: int) -> None:
    """Only so many of the best and the worst can be chosen, so a prompt with thousands of rows costs no more."""
    candidates = [_Candidate(str(i), float(value)) for i, value in enumerate(values)]

    def pairs(some: list[_Candidate]) -> list[tuple[float, float]]:
        numbers = [candidate.value for candidate in some]
        chosen = choose(numbers, lambda a, b: a - b >= margin, most)
        return [(numbers[i], numbers[j]) for i, j in chosen]

    assert pairs(_extremes(candidates, most)) == pairs(candidates)


def test_a_prompt_with_thousands_of_rows(read: Read) -> None:
    values = np.random.default_rng(0).permutation(4000)
    rows = [{"prompt": "p", "completion": f"c{value}", "label": int(value)} for value in values]
    found = read(rows, response="completion", score="label", pairs_per_problem=2)
    assert texts(found) == [("c3999", "c0"), ("c3998", "c1")]
