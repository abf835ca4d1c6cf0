"""When a reward model may be used."""

from __future__ import annotations

import numpy as np
import pytest

from configs.records import Estimate, PreferencePair
from configs.reward_schema import OutcomeLabeler, TrainedRewardModel
from reward_training.check import accuracy_over_problems, correlation, refusals

CONFIG = TrainedRewardModel(labeler=OutcomeLabeler(reward="correct"), min_pairs=10, min_accuracy=0.5)


def pairs(keys: str) -> list[PreferencePair]:
    return [
        PreferencePair(
            problem_key=key, prompt="q", chosen="a", rejected="b", margin=1.0, objective="quality", labeler="outcome",
            sources=("x", "y"), round=1, split="held_out",
        )
        for key in keys
    ]  # fmt: skip


def test_accuracy_is_over_pairs_and_its_interval_over_problems() -> None:
    estimate = accuracy_over_problems(pairs("aaab"), np.array([True, True, True, False]), seed=0)
    assert estimate.estimate == 0.75
    assert estimate.n == 2
    assert (estimate.low, estimate.high) == (0.0, 1.0)  # a quarter of the draws is b twice, a quarter a twice


def test_pairs_of_one_problem_are_no_independent_evidence() -> None:
    right = np.array([True, False] * 20)
    spread = accuracy_over_problems(pairs("".join(chr(97 + i) for i in range(40))), right, seed=0)
    clustered = accuracy_over_problems(pairs("a" * 8 + "b" * 8 + "c" * 8 + "d" * 8 + "e" * 8), np.sort(right), seed=0)
    assert clustered.high - clustered.low > 1.5 * (spread.high - spread.low)


def test_interval_is_the_same_for_the_same_seed() -> None:
    right = np.array([True, False, True])
    assert accuracy_over_problems(pairs("abc"), right, seed=1) == accuracy_over_problems(pairs("abc"), right, seed=1)


def test_few_problems_that_agree_have_a_wide_interval() -> None:
    estimate = accuracy_over_problems(pairs("abc"), np.array([True] * 3), seed=0)
    # Wilson for 3 of 3: low = 1 / (1 + 1.96^2 / 3) = 0.4385
    assert estimate.low == pytest.approx(0.4385, abs=1e-4)
    assert (estimate.estimate, estimate.high, estimate.n) == (1.0, 1.0, 3)


@pytest.mark.parametrize(
    ("low", "num_train_pairs", "num_reasons"), [(0.51, 10, 0), (0.5, 10, 1), (0.51, 9, 1), (0.4, 9, 2)]
)
def test_bounds_are_strict(low: float, num_train_pairs: int, num_reasons: int) -> None:
    accuracy = Estimate(estimate=0.7, low=low, high=0.9, n=30)
    assert len(refusals(accuracy, CONFIG, num_train_pairs)) == num_reasons


def test_reasons_give_the_numbers() -> None:
    reasons = refusals(Estimate(estimate=0.7, low=0.45, high=0.9, n=30), CONFIG, 9)
    assert reasons == [
        "9 training pairs are under min_pairs=10",
        "held-out accuracy 0.700 has lower bound 0.450 over 30 problems, not over min_accuracy=0.5",
    ]
    assert refusals(None, CONFIG, 10) == [
        "there are no held-out pairs to check it on; raise held_out_share or regeneration.num_problems"
    ]


def test_correlation_with_length() -> None:
    assert correlation(np.array([1.0, 2.0, 3.0]), np.array([10, 20, 30])) == pytest.approx(1.0)
    assert correlation(np.array([1.0, 2.0, 3.0]), np.array([5, 5, 5])) is None
    assert correlation(np.array([]), np.array([])) is None
