"""The check of a reward model: its measurements, and the reasons to refuse it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, LlamaConfig

from configs.records import Estimate, PreferencePair, RewardModelReport
from configs.schema.reward_models import OutcomeLabeler, TrainedRewardModel
from reward_training.reward_models.check import (
    accuracy_over_problems,
    calibration_error,
    check_reward_model,
    correlation,
    markup_share,
    refusals,
)
from tests.reward_training.reward_models.test_distinct import pair
from tests.reward_training.transformer.templates import STRICT, tokenizer_with

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


def report(low: float = 0.6, num_train_pairs: int = 10, **measured: Any) -> RewardModelReport:
    facts = {"id": "x", "path": "x", "accepted": False, "reasons": [], "margin": 1.0, "length_correlation": None}
    accuracy = Estimate(estimate=0.7, low=low, high=0.9, n=30)
    counts = {"num_train_pairs": num_train_pairs, "num_held_out_pairs": 60, "num_replayed_pairs": 0}
    return RewardModelReport.model_validate(facts | {"accuracy": accuracy} | counts | measured)


@pytest.mark.parametrize(
    ("low", "num_train_pairs", "num_reasons"), [(0.51, 10, 0), (0.5, 10, 1), (0.51, 9, 1), (0.4, 9, 2)]
)
def test_bounds_are_strict(low: float, num_train_pairs: int, num_reasons: int) -> None:
    assert len(refusals(report(low, num_train_pairs), CONFIG)) == num_reasons


def test_reasons_give_the_numbers() -> None:
    assert refusals(report(0.45, 9), CONFIG) == [
        "9 training pairs are under min_pairs=10",
        "held-out accuracy 0.700 has lower bound 0.450 over 30 problems, not over min_accuracy=0.5",
    ]
    assert refusals(report(accuracy=None), CONFIG) == [
        "there are no held-out pairs to check it on; raise held_out_share or regeneration.num_problems"
    ]


@pytest.mark.parametrize(("high", "is_refused"), [(0.49, True), (0.5, False), (0.8, False)])
def test_a_model_that_has_surely_forgotten_is_refused(high: float, is_refused: bool) -> None:
    old = Estimate(estimate=0.4, low=0.3, high=high, n=20)
    reasons = refusals(report(old_accuracy=old), CONFIG)
    assert bool(reasons) == is_refused
    assert (
        not is_refused
        or "earlier rounds has upper bound 0.490 over 20 problems, under min_old_accuracy=0.5" in reasons[0]
    )


@pytest.mark.parametrize(
    ("measured", "bound"),
    [
        ("calibration_error", "max_calibration_error"), ("length_correlation", "max_length_correlation"),
        ("markup_correlation", "max_markup_correlation"), ("canary_wins", "max_canary_wins"),
    ],
)  # fmt: skip
def test_each_further_bound_refuses_only_where_it_is_set_and_passed(measured: str, bound: str) -> None:
    assert refusals(report(**{measured: 0.9}), CONFIG) == []  # not set
    strict = CONFIG.model_copy(update={bound: 0.3})
    assert refusals(report(**{measured: 0.3}), strict) == []
    assert refusals(report(**{measured: None}), strict) == []
    assert f"0.310 is over {bound}=0.3" in refusals(report(**{measured: 0.31}), strict)[0]


def test_a_negative_correlation_counts_as_a_positive_one() -> None:
    assert refusals(report(length_correlation=-0.8), CONFIG.model_copy(update={"max_length_correlation": 0.7}))


def test_calibration_error_is_the_gap_of_confidence_and_accuracy() -> None:
    # sigmoid(log 4) = 0.8 in every pair; three of five are right, so 0.2 too sure
    margins = np.log(4) * np.array([1, 1, 1, -1, -1])
    assert calibration_error(margins) == pytest.approx(0.2)
    assert calibration_error(np.log(4) * np.array([1, 1, 1, 1, -1])) == pytest.approx(0.0)
    assert calibration_error(np.array([50.0, -50.0])) == pytest.approx(0.5)  # quite sure and half right


def test_calibration_error_weighs_bins_by_their_pairs() -> None:
    sure, unsure = np.log(19), np.log(0.6 / 0.4)  # 0.95 and 0.6, in bins of their own
    margins = np.array([sure] * 3 + [-sure] + [unsure] * 4 + [-unsure] * 2)
    # 4 pairs: 0.95 - 0.75; 6 pairs: 0.6 - 4 / 6, its absolute value
    assert calibration_error(margins) == pytest.approx((4 * 0.2 + 6 * (4 / 6 - 0.6)) / 10)


def test_markup_share() -> None:
    assert markup_share("") == 0.0
    assert markup_share("a*b#") == 0.5


def test_correlation_with_length() -> None:
    assert correlation(np.array([1.0, 2.0, 3.0]), np.array([10, 20, 30])) == pytest.approx(1.0)
    assert correlation(np.array([1.0, 2.0, 3.0]), np.array([5, 5, 5])) is None
    assert correlation(np.array([]), np.array([])) is None


def test_a_canary_that_the_chat_template_refuses_and_pairs_that_it_renders_alike_are_left_out(tmp_path: Path) -> None:
    """The empty response is a canary, and a template that refuses it ended the check."""
    torch.manual_seed(0)
    tokenizer = tokenizer_with(STRICT)
    llama = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_labels=1, pad_token_id=0,
    )  # fmt: skip
    AutoModelForSequenceClassification.from_config(llama).save_pretrained(str(tmp_path))
    tokenizer.save_pretrained(str(tmp_path))
    held_out = [pair("5", "6"), pair("7", "7 \n", prompt="3 + 4?"), pair("8", "", prompt="4 + 4?")]
    report = check_reward_model(
        tmp_path, held_out, held_out[1:], config=CONFIG, num_train_pairs=10, num_replayed_pairs=0, seed=0
    )
    assert report.num_held_out_pairs == 1  # the others are alike, and refused
    assert report.old_accuracy is None
    assert report.canary_wins in (0.0, 1 / 3, 2 / 3, 1.0)  # of the prompt, nonsense and an injection
