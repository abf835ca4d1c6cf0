"""Review items: which pairs people see, in which order, and the pairs that their verdicts give."""

from __future__ import annotations

import numpy as np
import pytest

from configs.records import Completion, Problem, ReviewItem, Score, Verdict
from configs.schema.reward_models import PeopleLabeler, ScoreLabeler, TrainedRewardModel
from configs.schema.rewards import (
    LengthRewardConfig,
    ModelRewardConfig,
    OutcomeRewardConfig,
    PythonRewardConfig,
    RewardConfig,
)
from reward_training.pairs.review import build_items, label_items, opinion

REWARDS: list[RewardConfig] = [
    OutcomeRewardConfig(name="correct"),
    ModelRewardConfig(name="quality", model="quality"),
    PythonRewardConfig(name="kind", function="a:b"),
    LengthRewardConfig(name="brief", target=4, limit=8),
]
PEOPLE = TrainedRewardModel(labeler=PeopleLabeler(num_items=3, otherwise=ScoreLabeler()), pairs_per_problem=1)
Row = tuple[Problem, Completion, Score]


def row(key: str, text: str, **parts: float | None) -> Row:
    problem = Problem(key=key, prompt=f"question {key}", answer="5", source="s", split="regenerate_001")
    completion = Completion(
        problem_key=key, index=0, prompt_ids=[], token_ids=[], text=text, finish_reason="stop", logprobs=[],
        policy_id=f"wrote {text}", step=0, seed=0,
    )  # fmt: skip
    return problem, completion, Score(parts={"correct": None, "kind": None, "brief": 0.0} | parts, total=0.0)


def ask(rows: list[Row], config: TrainedRewardModel = PEOPLE, seed: int = 0) -> list[ReviewItem]:
    problems, completions, scores = zip(*rows, strict=True)
    return build_items(
        problems,
        completions,
        scores,
        name="quality",
        config=config,
        rewards=REWARDS,
        run_name="r",
        round_index=1,
        rng=np.random.default_rng(seed),
    )


def texts(item: ReviewItem) -> set[str]:
    return {item.first, item.second}


def test_what_checker_model_and_python_disagree_on_is_asked_first() -> None:
    rows = [
        row("one mind", "a", correct=1.0, quality=2.0, kind=1.0),  # |1+1+1| / 3: disagreement 0
        row("one mind", "b", correct=0.0, quality=1.0, kind=0.0),
        row("two to one", "c", correct=1.0, quality=1.0, kind=1.0),  # |1-1+1| / 3: 2/3
        row("two to one", "d", correct=0.0, quality=2.0, kind=0.0),
        row("split", "e", correct=1.0, quality=1.0, kind=0.5),  # |1-1| / 2: 1, the third sees no difference
        row("split", "f", correct=0.0, quality=2.0, kind=0.5),
        row(
            "alone", "g", quality=2.0, correct=None, kind=None
        ),  # one opinion of three: 0, behind the three of one mind
        row("alone", "h", quality=1.0, correct=1.0, kind=1.0),
    ]
    items = ask(rows)
    assert [item.problem_key for item in items] == ["split", "two to one", "one mind"]  # num_items is 3
    assert [item.disagreement for item in items] == pytest.approx([1.0, 2 / 3, 0.0])


def test_rules_of_length_have_no_opinion_and_a_model_of_a_later_round_neither() -> None:
    [item] = ask([row("p", "a", correct=1.0, brief=0.0), row("p", "b", correct=0.0, brief=1.0)])
    assert item.disagreement == 0.0


def test_no_text_of_a_problem_is_asked_about_twice() -> None:
    config = PEOPLE.model_copy(update={"pairs_per_problem": 4, "labeler": PeopleLabeler(num_items=99)})
    rows = [row("p", text, correct=float(i), quality=float(-i)) for i, text in enumerate("abcdea")]
    items = ask(rows, config)
    asked = [text for item in items for text in (item.first, item.second)]
    assert len(items) == 2  # five different texts
    assert len(set(asked)) == len(asked)


def test_each_problem_gives_one_pair_before_any_gives_a_second() -> None:
    config = PEOPLE.model_copy(update={"pairs_per_problem": 2, "labeler": PeopleLabeler(num_items=99)})
    rows = [
        row(key, text, correct=value) for key in "pq" for text, value in zip("abcd", (0.0, 0.1, 0.2, 0.3), strict=True)
    ]
    assert [item.problem_key for item in ask(rows, config)] == ["p", "q", "p", "q"]


def test_order_of_the_two_is_drawn_and_tells_nothing_of_their_scores() -> None:
    rows = [row(f"p{i}", text, correct=value) for i in range(400) for text, value in (("good", 1.0), ("bad", 0.0))]
    config = PEOPLE.model_copy(update={"labeler": PeopleLabeler(num_items=400)})
    items = ask(rows, config)
    share = sum(item.first == "good" for item in items) / len(items)
    assert 0.4 < share < 0.6  # binomial, n = 400: 4 standard deviations
    assert all(item.sources == (f"wrote {item.first}", f"wrote {item.second}") for item in items)
    assert ask(rows, config) == items
    assert ask(rows, config, seed=1) != items


def test_item_knows_what_the_stand_in_would_say() -> None:
    # weighted totals without the reward model: 1 + 0 + 0 against 0.75 + 0 + 0
    [item] = ask(
        [
            row("p", "a", correct=1.0, quality=0.0, kind=0.0),
            row("p", "b", correct=0.75, quality=1.0, kind=0.0),
        ]
    )
    assert item.otherwise == (0.25 if item.first == "a" else -0.25)
    nobody = PEOPLE.model_copy(update={"labeler": PeopleLabeler()})
    [item] = ask([row("p", "a", correct=1.0), row("p", "b", correct=0.75)], nobody)
    assert item.otherwise is None


# ---- answers --------------------------------------------------------------------------------------------------------


def item(key: str = "p", otherwise: float | None = None) -> ReviewItem:
    return ReviewItem(
        id=key, kind="pair", objective="quality", run="r", round=1, problem_key=key, prompt="?", first="one", second="two",
        sources=("A", "B"), split="train", otherwise=otherwise,
    )  # fmt: skip


def said(choice: str, person: str = "x", given_ms: int = 0) -> Verdict:
    return Verdict.model_validate(
        {"item": "p", "choice": choice, "person": person, "given_ms": given_ms, "via": "file"}
    )


def test_opinion_is_the_mean_of_each_persons_latest_word() -> None:
    assert opinion([]) is None
    assert opinion([said("equal")]) == 0.0
    assert opinion([said("first", "x"), said("first", "y"), said("second", "z")]) == pytest.approx(1 / 3)
    assert opinion([said("second", "x", given_ms=2), said("first", "x", given_ms=1)]) == -1.0


def test_people_label_before_the_stand_in_and_equal_is_a_label_too() -> None:
    items = [item("p", otherwise=0.5), item("q", otherwise=-0.25), item("r", otherwise=0.5), item("s")]
    pairs = label_items(items, {"p": [said("second")], "r": [said("equal")]}, stand_in="score")
    assert [(p.problem_key, p.chosen, p.rejected, p.margin, p.labeler) for p in pairs] == [
        ("p", "two", "one", 1.0, "people"),
        ("q", "two", "one", 0.25, "score"),
        ("r", "one", "two", 0.0, "people"),  # takes back what the stand-in may have said
    ]
    assert pairs[0].sources == ("B", "A")
    assert [p.problem_key for p in label_items(items, {"p": [said("second")]}, stand_in=None)] == ["p"]
