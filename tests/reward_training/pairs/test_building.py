"""Preference pairs: which completions are paired, the held-out split, and replay of earlier rounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.records import Completion, PreferencePair, Problem, Score
from configs.schema.reward_models import OutcomeLabeler, ScoreLabeler, TrainedRewardModel
from configs.schema.rewards import LengthRewardConfig, ModelRewardConfig, OutcomeRewardConfig, RewardConfig
from reward_training.pairs.building import build_pairs, count_settled, is_held_out, select_training_pairs, settle

REWARDS: list[RewardConfig] = [
    OutcomeRewardConfig(name="correct", weight=1.0),
    LengthRewardConfig(name="brief", weight=0.5, target=4, limit=8),
    ModelRewardConfig(name="quality", weight=9.0, model="quality"),
]
OUTCOME = TrainedRewardModel(labeler=OutcomeLabeler(reward="correct"))
SCORE = TrainedRewardModel(labeler=ScoreLabeler(min_margin=0.2))


def make_row(text: str, index: int, key: str = "p", **parts: float | None) -> tuple[Problem, Completion, Score]:
    problem = Problem(key=key, prompt=f"question {key}", answer="5", source="s", split="regenerate_001")
    completion = Completion(
        problem_key=key, index=index, prompt_ids=[], token_ids=[], text=text, finish_reason="stop", logprobs=[],
        policy_id=f"policy-{index}", step=0, seed=0,
    )  # fmt: skip
    return problem, completion, Score(parts=parts, total=0.0)


def build(rows: list[tuple[Problem, Completion, Score]], config: TrainedRewardModel) -> list[PreferencePair]:
    problems, completions, scores = zip(*rows, strict=True)
    labeler = config.automatic_labeler
    assert labeler is not None
    return build_pairs(
        problems, completions, scores, name="quality", config=config, labeler=labeler, rewards=REWARDS, round_index=2
    )


def test_outcome_pairs_right_with_wrong() -> None:
    rows = [make_row("right", 0, correct=1.0), make_row("wrong", 1, correct=0.25)]
    (pair,) = build(rows, OUTCOME)
    assert (pair.chosen, pair.rejected, pair.margin) == ("right", "wrong", 0.75)
    assert pair.sources == ("policy-0", "policy-1")
    assert (pair.objective, pair.labeler, pair.round, pair.prompt) == ("quality", "outcome", 2, "question p")


def test_group_of_equal_outcomes_gives_no_pair() -> None:
    assert build([make_row("a", 0, correct=1.0), make_row("b", 1, correct=1.0)], OUTCOME) == []
    assert build([make_row("a", 0, correct=0.0), make_row("b", 1, correct=0.01)], OUTCOME) == []


def test_unscored_completion_is_in_no_pair() -> None:
    rows = [make_row("a", 0, correct=1.0), make_row("b", 1, correct=None), make_row("c", 2, correct=0.0)]
    assert [(pair.chosen, pair.rejected) for pair in build(rows, OUTCOME)] == [("a", "c")]


def test_completions_are_used_evenly() -> None:
    rows = [make_row(f"right {i}", i, correct=1.0) for i in range(2)]
    rows += [make_row(f"wrong {i}", 2 + i, correct=0.0) for i in range(4)]
    pairs = build(rows, OUTCOME)
    assert [(pair.chosen[-1], pair.rejected[-1]) for pair in pairs] == [("0", "0"), ("1", "1"), ("0", "2"), ("1", "3")]


def test_score_labeler_leaves_reward_models_out() -> None:
    rows = [
        make_row("a", 0, correct=1.0, brief=0.0, quality=-5.0),
        make_row("b", 1, correct=0.0, brief=1.0, quality=5.0),
        make_row("c", 2, correct=1.0, brief=0.2, quality=None),
    ]
    pairs = build(rows, SCORE)
    # totals: a 1.0, b 0.5, c 1.1; the widest margin first, then what uses them evenly; a and c are closer than 0.2
    assert [(pair.chosen, pair.rejected, round(pair.margin, 3)) for pair in pairs] == [("c", "b", 0.6), ("a", "b", 0.5)]
    assert pairs[0].labeler == "score"


def test_pairs_come_from_problems_that_the_labelers_rewards_apply_to() -> None:
    rows = [
        make_row("a", 0, brief=1.0),
        make_row("b", 1, brief=0.0),
        make_row("c", 0, "q", quality=1.0),
        make_row("d", 1, "q", quality=0.0),
    ]
    assert build(rows, OUTCOME) == []
    assert [(pair.problem_key, pair.chosen, pair.margin) for pair in build(rows, SCORE)] == [("p", "a", 0.5)]


def test_pairs_come_from_the_sources_that_the_reward_model_is_used_on() -> None:
    rows = [make_row("right", 0, correct=1.0), make_row("wrong", 1, correct=0.0)]
    problems, completions, scores = zip(*rows, strict=True)
    for sources, count in (({"s"}, 1), ({"other"}, 0), (None, 1)):
        pairs = build_pairs(
            problems, completions, scores, name="quality", config=OUTCOME, labeler=OutcomeLabeler(reward="correct"),
            sources=sources, rewards=REWARDS, round_index=2,
        )  # fmt: skip
        assert len(pairs) == count


def test_score_labeler_needs_every_part() -> None:
    rows = [make_row("a", 0, correct=1.0, brief=None), make_row("b", 1, correct=0.0, brief=1.0)]
    assert build(rows, SCORE) == []


groups = st.lists(
    st.tuples(st.sampled_from("pqr"), st.sampled_from("abcdef"), st.sampled_from([0.0, 0.3, 1.0, None])), max_size=24
)


@given(groups, st.integers(1, 6), st.booleans())
def test_pairs_hold_their_promises(group: list[tuple[str, str, float | None]], most: int, by_score: bool) -> None:
    config = (SCORE if by_score else OUTCOME).model_copy(update={"pairs_per_problem": most})
    rows = [make_row(text, i, key, correct=value, brief=0.0) for i, (key, text, value) in enumerate(group)]
    if not rows:
        return
    pairs = build(rows, config)
    assert pairs == build(rows, config)
    by_text = {}
    for problem, completion, score in rows:
        if score.parts["correct"] is not None:
            by_text.setdefault((problem.key, completion.text), score.parts["correct"])
    for pair in pairs:
        better, worse = (by_text[pair.problem_key, text] for text in (pair.chosen, pair.rejected))
        assert pair.chosen != pair.rejected
        assert pair.margin == better - worse > 0
        assert by_score or better >= 1 > worse
    for key in "pqr":
        mine = [(pair.chosen, pair.rejected) for pair in pairs if pair.problem_key == key]
        assert len(mine) == len(set(mine)) <= most


@given(st.text(min_size=1), st.floats(0, 1), st.floats(0, 1))
def test_raising_the_held_out_share_only_adds_problems(key: str, one: float, other: float) -> None:
    assert is_held_out(key, min(one, other)) <= is_held_out(key, max(one, other))


def test_held_out_share_is_kept() -> None:
    held_out = sum(is_held_out(f"problem {i}", 0.25) for i in range(4000))
    assert 0.22 < held_out / 4000 < 0.28  # four standard errors of sqrt(0.25 * 0.75 / 4000) = 0.007
    assert not any(is_held_out(f"problem {i}", 0.0) for i in range(100))
    assert all(is_held_out(f"problem {i}", 1.0) for i in range(100))


def pair(key: str, round_index: int, split: str = "train", chosen: str = "good") -> PreferencePair:
    return PreferencePair(
        problem_key=key, prompt="q", chosen=chosen, rejected="bad", margin=1.0, objective="quality", labeler="outcome",
        sources=("a", "b"), round=round_index, split=split,
    )  # fmt: skip


def select(num_new: int, num_earlier: int, fraction: float, most: int = 2048) -> tuple[int, int]:
    new = [pair(f"new {i}", 2) for i in range(num_new)]
    earlier = [pair(f"old {i}", 1) for i in range(num_earlier)]
    rng = np.random.default_rng(0)
    chosen = select_training_pairs(new, earlier, replay_fraction=fraction, max_pairs=most, rng=rng)
    num_old = sum(p.round == 1 for p in chosen)
    assert len({p.problem_key for p in chosen}) == len(chosen)
    return len(chosen) - num_old, num_old


@pytest.mark.parametrize(
    ("num_new", "num_earlier", "fraction", "most", "expected"),
    [
        (90, 500, 0.1, 2048, (90, 10)),  # 10 / 100
        (90, 4, 0.1, 2048, (90, 4)),  # all there are
        (90, 500, 0.0, 2048, (90, 0)),
        (90, 500, 0.5, 2048, (90, 90)),
        (90, 500, 1.0, 100, (0, 100)),
        (500, 500, 0.1, 100, (90, 10)),
        (500, 0, 0.1, 100, (100, 0)),
        (0, 500, 0.1, 100, (0, 0)),
    ],
)
def test_replayed_share(num_new: int, num_earlier: int, fraction: float, most: int, expected: tuple[int, int]) -> None:
    assert select(num_new, num_earlier, fraction, most) == expected


def test_held_out_problems_are_never_trained_on() -> None:
    new = [pair("a", 2), pair("b", 2, "held_out"), pair("c", 2)]
    earlier = [pair("c", 1, "held_out"), pair("d", 1), pair("b", 1)]
    rng = np.random.default_rng(0)
    chosen = select_training_pairs(new, earlier, replay_fraction=0.5, max_pairs=10, rng=rng)
    assert [p.problem_key for p in chosen] == ["a", "d"]


def test_two_texts_are_in_one_pair_the_newest() -> None:
    again, turned = pair("a", 2), pair("b", 2).model_copy(update={"chosen": "bad", "rejected": "good"})
    assert settle([again, turned], [pair("a", 1), pair("b", 1), pair("c", 1)]) == ([again, turned], [pair("c", 1)])


def test_a_persons_word_stands_over_newer_labels_of_others_and_under_a_newer_persons() -> None:
    said = pair("a", 1).model_copy(update={"labeler": "people"})
    against = pair("a", 2).model_copy(update={"chosen": "bad", "rejected": "good"})
    assert settle([against], [said]) == ([], [said])
    later = against.model_copy(update={"labeler": "people"})
    assert settle([later], [said]) == ([later], [])
    assert settle([said], [against]) == ([said], [])


def test_where_people_see_no_difference_no_label_stands() -> None:
    equal = pair("a", 2).model_copy(update={"labeler": "people", "margin": 0.0})
    assert settle([equal], [pair("a", 1), pair("b", 1)]) == ([], [pair("b", 1)])
    said = pair("a", 3).model_copy(update={"labeler": "people"})
    assert settle([said], [pair("a", 1), equal]) == ([said], [])


def test_same_generator_selects_the_same() -> None:
    new, earlier = [pair(f"n{i}", 2) for i in range(50)], [pair(f"o{i}", 1) for i in range(50)]
    runs = [
        select_training_pairs(new, earlier, replay_fraction=0.3, max_pairs=30, rng=np.random.default_rng(7))
        for _ in range(2)
    ]
    assert runs[0] == runs[1]


def test_what_is_settled_is_counted_by_reason() -> None:
    first, again, turned = (
        pair("a", 1),
        pair("a", 2),
        pair("a", 2).model_copy(update={"chosen": "bad ", "rejected": "good"}),
    )
    assert settle([again], [first]) == ([again], [])
    assert count_settled([again], [first]) == {"duplicate": 1}
    assert settle([turned], [first]) == ([turned], [])
    assert count_settled([turned], [first, pair("b", 1)]) == {"contradicting": 1}
    people = first.model_copy(update={"labeler": "people"})
    assert count_settled([turned], [people, first]) == {"contradicting": 1, "duplicate": 1}
    equal = people.model_copy(update={"margin": 0.0})
    assert count_settled([turned, equal], [first]) == {"tie": 2}
    assert count_settled([turned], []) == {}
