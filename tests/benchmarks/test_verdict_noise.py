"""Flipped verdicts: how many, which, and the same again; and the experiment's tables."""

from __future__ import annotations

from typing import Any

import pytest

import benchmarks.verdict_noise as experiment
from benchmarks.verdict_noise import ARMS, KINDS, MEASURES, differences, flipped, seed_slopes, table
from configs.reader import load_config
from configs.records import Completion, Problem
from configs.schema.rewards import PythonRewardConfig
from reward_training.rewards.python_function import load_function

GREEDY = next(iter(MEASURES.values()))
PROBLEM = Problem(key="9f", prompt="2 + 3 = ?", answer="5", source="chain_sum", split="train")


def answers(text: str, *, step: int = 1, num: int = 4000) -> list[Completion]:
    return [
        Completion(
            problem_key=PROBLEM.key,
            index=index,
            prompt_ids=[1],
            token_ids=[2],
            text=text,
            finish_reason="stop",
            logprobs=[0.0],
            policy_id="p",
            step=step,
            seed=step,
        )
        for index in range(num)
    ]


def verdicts(completions: list[Completion], *, accepts: float = 0.0, refusals: float = 0.0) -> list[float]:
    values = flipped([PROBLEM] * len(completions), completions, accepts=accepts, refusals=refusals)
    assert all(isinstance(value, float) for value in values)
    return [value for value in values if isinstance(value, float)]


@pytest.mark.parametrize("rate", [0.02, 0.05, 0.10, 0.20])
def test_share_of_flips_is_the_rate_and_of_the_other_kind_there_are_none(rate: float) -> None:
    wrong, right = answers("It is 4."), answers("It is 5.")
    bound = 4 * (rate * (1 - rate) / len(wrong)) ** 0.5  # four standard deviations of a share
    assert sum(verdicts(wrong, accepts=rate)) / len(wrong) == pytest.approx(rate, abs=bound)
    assert sum(verdicts(right, accepts=rate)) == len(right)
    assert sum(verdicts(right, refusals=rate)) / len(right) == pytest.approx(1 - rate, abs=bound)
    assert sum(verdicts(wrong, refusals=rate)) == 0


def test_rate_0_is_the_clean_checker() -> None:
    completions = [*answers("It is 5.", num=50), *answers("It is 4.", num=50), *answers("I do not know", num=50)]
    assert verdicts(completions) == [1.0] * 50 + [0.0] * 100


def test_flips_are_the_same_again_in_any_order_and_others_at_another_step() -> None:
    wrong = answers("It is 4.", num=400)
    flips = verdicts(wrong, accepts=0.2)
    assert verdicts(wrong, accepts=0.2) == flips
    assert verdicts(wrong[::-1], accepts=0.2) == flips[::-1]
    assert verdicts(answers("It is 4.", step=2, num=400), accepts=0.2) != flips


def test_what_is_flipped_at_a_low_rate_is_flipped_at_a_higher_one() -> None:
    wrong = answers("It is 4.", num=400)
    low, high = verdicts(wrong, accepts=0.05), verdicts(wrong, accepts=0.2)
    assert sum(low) > 0
    assert all(flip <= other for flip, other in zip(low, high, strict=True))


def test_each_arm_has_a_function_with_its_rates() -> None:
    reward = load_config(experiment.CONFIG).rewards[0]
    assert isinstance(reward, PythonRewardConfig)
    module = reward.function.partition(":")[0]
    rates = {arm: load_function(f"{module}:{arm}").keywords for arm in ARMS}  # type: ignore[attr-defined]
    assert rates == {arm: {"accepts": accepts, "refusals": refusals} for arm, (accepts, refusals) in ARMS.items()}


def run(accuracy: float) -> dict[str, Any]:
    return {
        "rounds": [{"evaluation": {key: {"estimate": value} for key in MEASURES.values()}} for value in (0.1, accuracy)]
    }


def test_differences_are_from_the_clean_run_of_the_same_seed_and_slopes_from_whole_seeds() -> None:
    # seed 0 loses half the rate, seed 1 lacks its clean run
    found = {arm: {0: run(0.4 - max(rates) / 2), 1: run(0.2)} for arm, rates in ARMS.items()}
    del found["clean"][1]
    assert differences(found, "accepts_20", GREEDY) == pytest.approx([-0.1])
    for kind in KINDS:
        assert seed_slopes(found, kind, GREEDY) == pytest.approx([-0.05])  # per 10%


def test_table_has_a_row_an_arm_and_a_dash_where_no_two_seeds_are_there() -> None:
    found = {arm: {0: run(0.3), 1: run(0.4)} for arm in ARMS}
    found["refusals_20"] = {0: run(0.2)}
    lines = table(found, GREEDY).splitlines()
    assert len(lines) == 3 + len(ARMS)
    assert lines[2] == "| before training | 0.100, 0.100 | 0.100 \u00b1 0.000 | |"
    assert lines[3] == "| clean | 0.300, 0.400 | 0.350 \u00b1 0.635 |  |"  # 12.706 * 0.0707 / sqrt(2)
    assert lines[-1] == "| 20% false refusals | 0.200 | - | - |"
