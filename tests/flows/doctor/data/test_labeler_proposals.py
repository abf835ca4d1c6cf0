"""What is proposed for rows in the layout of known preference sets: those of docs/data.md."""

from typing import Any

import pytest

from configs.disk.rows.columns import Row
from flows.doctor.data.holding import columns_of
from flows.doctor.data.labeler_blocks import UNKNOWN
from flows.doctor.data.report import Pairs, Place, labeler_part, propose_labeler
from tests.reward_training.preferences.known_sets import CASES

ASKS_FOR_THE_DIRECTION = {"helpsteer3", "thumbs"}
"""which values prefer which response, the data does not say"""
OTHERWISE = {"summarize-comparisons", "summarize-axis", "ultrafeedback"}
"""docs/data.md puts the title into the prompt, or asks for a margin"""


def proposed(rows: list[dict[str, Any]]) -> Pairs | None:
    placed: list[Row] = [(f"row {i}", row) for i, row in enumerate(rows)]
    return propose_labeler(Place("owner/name"), placed, columns_of(rows))


@pytest.mark.parametrize("name", sorted(CASES.keys() - ASKS_FOR_THE_DIRECTION - OTHERWISE))
def test_known_layouts_get_the_pairs_that_they_hold(name: str) -> None:
    found = proposed(CASES[name].rows)
    assert found is not None
    assert [(pair.prompt, pair.chosen, pair.rejected) for pair in found.pairs] == CASES[name].pairs


@pytest.mark.parametrize("name", sorted(OTHERWISE))
def test_other_known_layouts_get_pairs(name: str) -> None:
    found = proposed(CASES[name].rows)
    assert found is not None
    assert found.pairs


@pytest.mark.parametrize("name", sorted(ASKS_FOR_THE_DIRECTION))
def test_direction_that_the_data_does_not_say_is_asked_for(name: str) -> None:
    found = proposed(CASES[name].rows)
    assert found is not None
    assert found.pairs == []
    assert UNKNOWN in repr(found.block)


def test_labels_of_zero_and_one_are_no_direction_unless_the_columns_are_numbered_so() -> None:
    """Of SHP's labels 1 means the first response: half of the guesses would be wrong."""
    numbered = {"prompt": "Q", "response_0": "x", "response_1": "y", "label": 1}
    found = proposed([numbered, numbered | {"prompt": "R", "label": 0}])
    assert found is not None
    assert found.block["better"] == {"column": "label", "values": [UNKNOWN, UNKNOWN]}
    lettered = {"prompt": "Q", "response_a": "x", "response_b": "y", "label": 1}
    found = proposed([lettered, lettered | {"prompt": "R", "label": 0}])
    assert found is not None
    assert found.block["better"] == {"column": "label", "values": [UNKNOWN, UNKNOWN]}


def test_problems_are_no_preferences() -> None:
    assert proposed([{"question": "What is 1 + 2?", "answer": "3"}]) is None
    assert (
        proposed([{"prompt": "Q", "response": "3", "score": 0.5}, {"prompt": "R", "response": "4", "score": 0.1}])
        is None
    )


def test_options_are_no_responses() -> None:
    assert proposed([{"question": "Q", "answerA": "x", "answerB": "y", "answerC": "z", "label": 1}]) is None
    assert proposed([{"question": "Q", "answers": ["x", "y", "z"], "label": 1}]) is None


def test_ranks_of_two_columns_and_labelled_conversations() -> None:
    found = proposed([{"prompt": "Q", "response_a": "x", "response_b": "y", "rank_a": 2, "rank_b": 1}])
    assert found is not None
    assert [(pair.chosen, pair.rejected) for pair in found.pairs] == [("y", "x")]
    asked, says = {"role": "user", "content": "Q"}, [{"role": "assistant", "content": text} for text in "xy"]
    found = proposed([{"messages": [asked, says[0]], "label": False}, {"messages": [asked, says[1]], "label": True}])
    assert found is not None
    assert [(pair.chosen, pair.rejected) for pair in found.pairs] == [("y", "x")]


def test_part_of_a_configuration_has_reward_model_and_reward() -> None:
    found = proposed(CASES["nectar"].rows)
    assert found is not None
    part = labeler_part(found)
    assert part["reward_models"]["quality"]["labeler"] == {
        "kind": "file", "path": "owner/name", "responses": "answers.answer", "rank": "answers.rank",
    }  # fmt: skip
    assert part["rewards"] == [{"name": "quality", "kind": "reward_model", "model": "quality"}]
