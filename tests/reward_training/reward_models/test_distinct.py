"""Pairs that the chat template renders alike, or refuses, are left out and counted."""

from __future__ import annotations

import pytest

from configs.records import PreferencePair, TemplateSettings
from reward_training.reward_models.distinct import PairIds, distinct_pairs, too_long
from reward_training.transformer.chat_template import set_up_template
from tests.reward_training.transformer.templates import CHATML, STRICT, STRIPPING, of_trl, tokenizer_with


def pair(chosen: str, rejected: str, prompt: str = "2 + 3?") -> PreferencePair:
    return PreferencePair(
        problem_key=prompt,
        prompt=[{"role": "user", "content": prompt}],
        chosen=chosen,
        rejected=rejected,
        margin=1.0,
        objective="taste",
        labeler="file",
        sources=("a", "b"),
        round=0,
        split="train",
    )


PAIRS = [
    pair("<think>\n2 and 3\n</think>\n\n5", "<think>\nhm\n</think>\n\n5"),
    pair("<think>\nhm\n</think>\n\n5", "<think>\nhm\n</think>\n\n6"),
    pair("5", "5\n"),
    pair("5", ""),
]


@pytest.mark.parametrize(
    ("template", "kept", "alike", "refused"),
    [
        (CHATML, [0, 1, 2, 3], 0, 0),
        (STRIPPING, [1, 3], 2, 0),
        (STRICT, [0, 1], 1, 1),  # trims, and takes no empty message
        (of_trl("deepseek_r1_distill"), [1, 2, 3], 1, 0),
        (of_trl("qwen3"), [0, 1, 2, 3], 0, 0),  # keeps the thoughts of the last turn
    ],
    ids=["chatml", "stripping", "strict", "deepseek_r1_distill", "qwen3"],
)
def test_pairs_that_differ_in_what_a_template_strips(template: str, kept: list[int], alike: int, refused: int) -> None:
    found = distinct_pairs(tokenizer_with(template), PAIRS)
    assert [ids.index for ids in found.ids] == kept
    assert [PAIRS[i] for i in kept] == found.pairs
    assert found.left_out == {reason: n for reason, n in (("alike", alike), ("refused", refused)) if n}
    assert ("renders both responses alike" in found.told, "Empty message" in found.told) == (alike > 0, refused > 0)
    assert all(ids.chosen != ids.rejected for ids in found.ids)


def test_no_pairs() -> None:
    assert distinct_pairs(tokenizer_with(CHATML), []).ids == []


def test_pairs_whose_system_message_the_template_drops_are_counted() -> None:
    """The same questions with opposite labels under two system messages, which are one to such a reward model."""
    dropping = CHATML.replace("in messages %}", "in messages if message.role != 'system' %}")
    pairs = [
        pair(*answers, prompt=f"{n} + 3?").model_copy(
            update={"prompt": [{"role": "system", "content": system}, {"role": "user", "content": f"{n} + 3?"}]}
        )
        for system, answers in (("Be brief.", ("5", "It is 5.")), ("Be wordy.", ("It is 5.", "5")))
        for n in range(3)
    ]
    found = distinct_pairs(tokenizer_with(dropping), [*pairs, *PAIRS])
    assert (len(found.ids), found.left_out, found.num_unwritten) == (10, {}, 6)
    assert found.unwritten.startswith("the prompts of 6 of 10 pairs hold a message that the chat template of")
    assert "the system message 'Be brief.'" in found.unwritten
    assert "set problems.join_system=true" in found.unwritten
    joining = tokenizer_with(dropping)
    set_up_template(joining, TemplateSettings(join_system=True), field=None)
    for tokenizer in (joining, tokenizer_with(CHATML)):
        found = distinct_pairs(tokenizer, pairs)
        assert (found.num_unwritten, found.unwritten) == (0, "")
        assert len({tuple(ids.chosen) for ids in found.ids}) == 6


def test_pairs_that_are_too_long_are_told_with_the_length_that_they_need() -> None:
    ids = [PairIds(0, [1] * 5, [1] * 9), PairIds(1, [1] * 7, [1]), PairIds(2, [1], [2])]
    assert too_long(ids, 9, "taste") == too_long([], 9, "taste") == ""
    assert too_long(ids, 8, "taste") == (
        "1 of 3 pairs do not fit into max_length=8 tokens and are left out; reward_models.taste.max_length=9 takes them all"
    )
    assert too_long(ids[:2], 6, "taste") == (
        "no pair of 2 fits into max_length=6 tokens: the shortest needs 7 and the longest 9; raise reward_models.taste.max_length"
    )
