"""The labeler of kind `file`: which combinations of fields are refused, and that a stored configuration is the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from configs.schema.preferences import FileLabeler

TWO = {"responses": ["a", "b"]}


def labeler(**fields: Any) -> FileLabeler:
    return FileLabeler.model_validate({"kind": "file", "path": "x.jsonl", **fields})


def test_chosen_and_rejected_are_the_default() -> None:
    assert (labeler().chosen, labeler().rejected, labeler().prompt) == ("chosen", "rejected", "prompt")
    assert labeler(chosen="good").rejected == "rejected"
    others = labeler(response="completion", score="label")
    assert (others.chosen, others.rejected) == (None, None)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (TWO, "responses needs exactly one of better, score, rank .* and has none"),
        (TWO | {"score": ["s", "t"], "rank": ["s", "t"]}, "has score and rank"),
        ({"response": "a"}, "response needs exactly one of score, rank"),
        (
            {"response": "a", "better": {"column": "l", "values": [1, 0]}},
            "needs exactly one of score, rank .* has better",
        ),
        ({"response": "a", "score": "s"} | TWO, "responses and response say in more than one way"),
        ({"chosen": "a", "score": "s"} | TWO, "chosen and responses say in more than one way"),
        ({"rejected": "a", "score": ["s", "t"]} | TWO, "responses and rejected say in more than one way"),
        ({"score": ["s", "t"]}, r"score has no meaning; drop it, or write responses: \[chosen, rejected\]"),
        ({"better": {"column": "label", "values": [1, 0]}}, "so better has no meaning"),
        ({"min_margin": 1}, "min_margin=1.0 has no meaning without score, rank or better.negative"),
        (TWO | {"better": {"column": "l", "values": [1, 0]}, "min_margin": 1}, "min_margin=1.0 has no meaning"),
        (TWO | {"rank": ["s", "t"], "score_values": {"up": 1}}, "score_values has no meaning without score"),
        (
            TWO | {"better": {"column": "labels"}},
            "does not say which of its values prefers which response; give `values`",
        ),
        (TWO | {"better": {"column": "l", "values": [1, 0], "negative": "first"}}, "give `values`, .* or `negative"),
        (TWO | {"better": {"column": "l", "values": [1]}}, "at least 2 items"),
        (TWO | {"better": {"column": "l", "values": [1, 1]}}, "values and tie name 1 twice"),
        (TWO | {"better": {"column": "l", "values": [[1, 2], "2"]}}, "values and tie name 2.* twice"),
        (TWO | {"better": {"column": "l", "values": ["a", "b"], "tie": ["b"]}}, "name 'b' twice"),
        (TWO | {"better": {"column": "l", "negative": "first", "tie": [0]}}, "0 is the tie; drop it"),
        (
            TWO | {"better": {"column": "l", "values": [0, 1, 2]}},
            "better tells 3 responses apart, but responses names 2",
        ),
        ({"responses": ["a", "b", "c"], "better": {"column": "l", "negative": "second"}}, "tells 2 .* names 3 columns"),
        ({"responses": ["a"], "score": ["s"]}, "must name two or more different columns"),
        ({"responses": ["a", "a"], "score": ["s", "t"]}, "must name two or more different columns"),
        (TWO | {"score": "s"}, "score='s' does not fit the responses; give a list of 2 columns"),
        (TWO | {"rank": ["s", "t", "u"]}, "does not fit the responses; give a list of 2 columns, one a response"),
        ({"responses": "a.text", "score": ["s", "t"]}, "does not fit the responses; give one column"),
        ({"response": "a", "rank": ["s"]}, "does not fit the responses; give one column"),
        ({"path": []}, "at least 1 item"),
    ],
)
def test_a_combination_without_one_meaning_is_refused_with_the_remedy(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        labeler(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"prompt": None, "system": "s", "turns": {"user": "U:", "assistant": "A:"}},
        TWO | {"better": {"column": "l", "values": [True, False], "tie": ["?", 2, 0.5]}},
        {"response": "a", "score": "s", "score_values": {True: 1, 2: 0.5, "up": None}},
    ],
)
def test_what_run_json_holds_is_the_same_configuration(fields: dict[str, Any]) -> None:
    stored = json.loads(json.dumps(labeler(**fields).model_dump(mode="json")))
    assert FileLabeler.model_validate(stored) == labeler(**fields)
