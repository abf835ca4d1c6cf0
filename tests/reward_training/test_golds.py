"""When a run is refused for its gold answers, and when it is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from configs.errors import ConfigError
from configs.records import Problem
from configs.schema.rewards import OutcomeRewardConfig
from reward_training.golds import GoldTrial, outcome_pairs, refuse_failing_golds, trials_of, written_as_asked
from reward_training.scorer import build_rewards

MakeProblem = Callable[..., Problem]


def outcome(**fields: Any) -> OutcomeRewardConfig:
    return OutcomeRewardConfig.model_validate({"name": "right", "extract": "whole"} | fields)


def trials(reward: OutcomeRewardConfig, problems: list[Problem]) -> list[GoldTrial]:
    with build_rewards([reward], {}) as [built]:
        return trials_of(reward, built, problems)


@pytest.fixture
def source(make_problem: MakeProblem) -> Callable[..., list[Problem]]:
    def of(name: str, answers: list[str | None], **fields: Any) -> list[Problem]:
        return [make_problem(f"{name}{i}", answer=answer, source=name, **fields) for i, answer in enumerate(answers)]

    return of


Source = Callable[..., list[Problem]]


def test_a_source_of_which_more_than_half_fail_is_refused(source: Source) -> None:
    numbers = outcome(extract="last_number")
    good, half, bad = ["1", "2", "3", "4"], ["1", "2", "red", "blue"], ["1", "red", "blue", "green"]
    refuse_failing_golds([(numbers, [*source("good.jsonl", good), *source("half.jsonl", half)])])
    with pytest.raises(ConfigError) as caught:
        refuse_failing_golds([(numbers, [*source("good.jsonl", good * 9), *source("bad.jsonl", bad)])])
    assert str(caught.value) == (
        "gold answers, right: 3 of 4 fail, for instance 'red' of bad.jsonl; extract: last_number with checker: exact "
        "does not fit these answers; change either"
    )


def test_each_reward_is_tried_on_its_own_problems(source: Source) -> None:
    words, numbers = outcome(name="words"), outcome(name="numbers", extract="last_number")
    refuse_failing_golds([(words, source("words", ["red"])), (numbers, source("numbers", ["1"]))])
    with pytest.raises(ConfigError, match=r"^gold answers, numbers: 1 of 1 fail, for instance 'red' of words; "):
        refuse_failing_golds([(words, source("words", ["red"])), (numbers, source("words", ["red"]))])
    problems = source("words", ["red"])
    assert [(r.name, p) for r, p in outcome_pairs([words, numbers], problems)] == [
        ("words", problems),
        ("numbers", problems),
    ]
    elsewhere = outcome(name="elsewhere", sources=["numbers"])
    assert [reward.name for reward, _ in outcome_pairs([words, elsewhere], problems)] == ["words"]


@pytest.mark.parametrize("checker", ["exact", "numeric", "math"])
def test_checker_that_compares_needs_gold_answers(checker: str, source: Source) -> None:
    with pytest.raises(
        ConfigError, match=f"2 problems of open have no gold answer, which checker: {checker} needs; use a"
    ):
        refuse_failing_golds([(outcome(checker=checker), source("open", ["1", None, None]))])


def test_problems_that_a_checker_cannot_read_are_refused(source: Source) -> None:
    with pytest.raises(ConfigError, match=r"the column 'choices' None.*; checker: choice does not fit these problems"):
        refuse_failing_golds([(outcome(checker="choice"), source("mmlu", ["A"]))])


def test_empty_gold_answer_is_tried_like_any_other(source: Source) -> None:
    for extract in ("whole", "tag", "boxed", "hash", "json", "final"):
        reward = outcome(extract=extract)
        assert (
            written_as_asked("", reward)
            == {
                "whole": "",
                "tag": "<answer></answer>",
                "boxed": r"\boxed{}",
                "hash": "#### ",
                "json": '{"answer": ""}',
                "final": r"\boxed{}",
            }[extract]
        )
        [trial] = trials(reward, source("ab", ["", ""]))
        assert (trial.num_tried, trial.refused, trial.failure) == (2, (), "")


def test_reason_of_a_refusal_is_told(source: Source) -> None:
    entry = {"question": "?", "answer": "5", "metadata": {}}
    meta = {"family": "chain_sum", "entry": entry}
    [trial] = trials(outcome(checker="reasoning_gym"), source("chain_sum", ["5 or 6"], meta=meta))
    assert trial.failure.startswith("1 of 1 fail, for instance '5 or 6' of chain_sum (scored 0.1")
    [trial] = trials(outcome(checker="reasoning_gym"), source("nothing", ["5"], meta=meta | {"family": "none"}))
    assert "'5' of nothing (checker raised ValueError: Dataset 'none' not registered)" in trial.failure
    [trial] = trials(outcome(checker="reasoning_gym"), source("a.jsonl", ["5"]))
    assert "has no reasoning-gym entry" in trial.failure


def test_scorer_that_takes_any_text_is_refused(source: Source) -> None:
    entry = {"question": "?", "answer": "False", "metadata": {}}
    problems = source("game_of_life_halting", ["False"], meta={"family": "game_of_life_halting", "entry": entry})
    with pytest.raises(ConfigError, match=r"takes any text for right, for instance '\?'; use checker: exact"):
        refuse_failing_golds([(outcome(checker="reasoning_gym"), problems)])
    refuse_failing_golds([(outcome(), problems)])


def test_scorer_that_needs_no_gold_answer_is_used_without(source: Source) -> None:
    entry = {"question": "?", "answer": None, "metadata": {"board_config": "oxoCCCDDDoIJAAHoIJoGHoEEoGFFFKoooooK"}}
    meta = {"family": "rush_hour", "entry": entry}
    [trial] = trials(outcome(checker="reasoning_gym"), source("rush_hour", [None] * 3, meta=meta))
    assert (trial.num_tried, trial.failure) == (0, "")
