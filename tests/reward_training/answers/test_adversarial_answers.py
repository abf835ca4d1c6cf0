"""Right and wrong answers as models write them, to be told apart: tables that were written without sight of the code.

The first four were tuned on once they had been tried. The fifth is held out: its figures are known, and which of its cases are missed is
not to be looked at. docs/answers.md has the figures.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from configs.records import Completion, Problem
from configs.schema.rewards import OutcomeRewardConfig
from reward_training.answers.finding.final_answer import final_answer
from reward_training.answers.values.quantity import quantity
from reward_training.rewards.checker_pool import CheckerPool
from reward_training.rewards.outcome import OutcomeReward


def read(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(__file__).with_name(name).read_text().splitlines()]


CASES = read("adversarial_cases.jsonl")
SECOND = read("adversarial_cases_second.jsonl")
"""written blind, and tuned on after a first look"""
THIRD = read("adversarial_cases_third.jsonl")
"""as the second, after that"""
FOURTH = read("adversarial_cases_fourth.jsonl")
"""two thirds of it tuned on, then the last third, by a hash of the case's name"""
HELD_OUT = read("adversarial_cases_fifth.jsonl")
"""written blind, and not tuned on; once it is, a new one has to be written"""
FRESH = read("adversarial_cases_fresh.jsonl")
"""written blind as well, and not tuned on"""
WRONGLY_ACCEPTED, WRONGLY_REFUSED = 0.02, 0.03


@pytest.fixture(scope="module")
def verdicts() -> dict[str, bool]:
    """What each case is worth."""
    found: dict[str, bool] = {}
    with CheckerPool(["reasoning_gym"]) as pool:
        for case in [*CASES, *SECOND, *THIRD, *FOURTH, *FRESH, *HELD_OUT]:
            found[case["id"]] = _ask(case, pool)
    return found


def _ask(case: dict[str, Any], pool: CheckerPool) -> bool:
    fields = {"pattern": case["options"]["pattern"]} if case["checker"] == "regex" else {}
    if "tolerance" in case["options"]:
        fields["tolerance"] = case["options"]["tolerance"]
    settings = {
        "name": "right",
        "extract": case["extract"],
        "checker": case["checker"],
        "strict": True,
        "timeout_s": 20,
    }
    reward = OutcomeReward(OutcomeRewardConfig.model_validate(settings | fields), pool)
    meta = {"choices": case["options"]["choices"]} if case["checker"] == "choice" else {}
    prompt = [{"role": "user", "content": case["prompt"]}]
    problem = Problem(key=case["id"], prompt=prompt, answer=case["gold"], source="table", meta=meta, split="train")
    completion = Completion(
        problem_key=case["id"], index=0, prompt_ids=[], token_ids=[1], text=case["text"], finish_reason="stop", logprobs=[0.0],
        policy_id="table", step=0, seed=0,
    )  # fmt: skip
    return reward([problem], [completion])[0] == 1.0


def shares(cases: list[dict[str, Any]], verdicts: dict[str, bool]) -> tuple[float, float]:
    """(wrongly accepted of the wrong ones, wrongly refused of the right ones)."""
    right, wrong = ([case for case in cases if case["right"] is is_right] for is_right in (True, False))
    accepted = sum(verdicts[case["id"]] for case in wrong) / len(wrong)
    refused = sum(not verdicts[case["id"]] for case in right) / len(right)
    return accepted, refused


@pytest.mark.parametrize(
    "table", [HELD_OUT, CASES, SECOND, THIRD, FOURTH], ids=["held out", "first", "second", "third", "fourth"]
)
def test_few_wrong_answers_pass_and_few_right_ones_do_not(
    table: list[dict[str, Any]], verdicts: dict[str, bool]
) -> None:
    accepted, refused = shares(table, verdicts)
    assert accepted <= WRONGLY_ACCEPTED
    assert refused <= WRONGLY_REFUSED


def test_fresh_cases_are_told_apart_as_the_documents_say(verdicts: dict[str, bool]) -> None:
    """Not a bound to tune to: a change of these figures belongs into docs/answers.md."""
    accepted, refused = shares(FRESH, verdicts)
    assert (accepted * 20, refused * 44) == (pytest.approx(1), pytest.approx(2))


@pytest.mark.parametrize("table", [CASES, HELD_OUT], ids=["first", "held out"])
def test_a_table_is_whole(table: list[dict[str, Any]]) -> None:
    assert len(table) >= 300
    assert len({case["id"] for case in table}) == len(table)
    assert min(Counter(case["category"] for case in table).values()) >= 28


LONG = ["9" * 20_000, "1, " * 7_000, "<answer>" * 3_000, "\\boxed{" * 3_000, "{" * 20_000, "the answer is " * 2_000, "a " * 10_000,
        "#### " * 4_000, "not " * 5_000 + "5", "(" * 20_000, "1 000 " * 4_000, "= " * 10_000, "1/" * 10_000, "- " * 10_000]  # fmt: skip


@pytest.mark.parametrize("extract", ["final", "tag", "boxed", "hash", "answer_is", "json", "last_number", "whole"])
def test_no_text_takes_long(extract: str) -> None:
    for text in LONG:
        began = time.perf_counter()
        answer = final_answer(text, extract)
        quantity(answer or text)
        assert time.perf_counter() - began < 2, text[:20]
