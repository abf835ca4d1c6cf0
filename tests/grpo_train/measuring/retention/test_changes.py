from typing import Any

import pytest

from configs.schema.measuring.retention import RetentionBound
from grpo_train.measuring.retention.changes import losses, paired_change, suite_estimates

SEEDS: dict[str, Any] = {"run_seed": 0, "draws": 500}


def rows(values: dict[str, float], suite: str = "prose", measure: str = "value") -> list[dict[str, Any]]:
    return [{"suite": suite, "item": item, measure: value} for item, value in values.items()]


def test_a_change_is_paired_over_the_items_that_both_have() -> None:
    change = paired_change(
        rows({"a": -2.0, "b": -9.0, "c": -1.0}), rows({"b": -9.5, "a": -2.5}), "prose", "value", **SEEDS
    )
    assert change is not None
    assert (change.estimate, change.low, change.high, change.n) == (-0.5, -0.5, -0.5, 2)  # -0.5 on both items
    assert paired_change(rows({"a": 1.0}), rows({"b": 1.0}), "prose", "value", **SEEDS) is None
    assert paired_change(rows({"a": 1.0}), rows({"a": 1.0}), "other", "value", **SEEDS) is None


def test_pairing_resolves_what_the_spread_of_the_items_hides() -> None:
    before = {str(i): -float(i % 7) for i in range(70)}  # from 0 to -6: a standard deviation of 2
    change = paired_change(rows(before), rows({k: v - 0.01 for k, v in before.items()}), "prose", "value", **SEEDS)
    assert change is not None
    assert (change.low, change.high) == (pytest.approx(-0.01), pytest.approx(-0.01))


def test_estimates_are_means_by_suite_and_measure() -> None:
    measured = [*rows({"a": -2.0, "b": -4.0}), *rows({"q": 1.0}, "facts"), *rows({"q": -0.5}, "facts", "gold")]
    found = suite_estimates(measured, **SEEDS)
    assert {name: {m: e.estimate for m, e in measures.items()} for name, measures in found.items()} == {
        "prose": {"value": -3.0},
        "facts": {"value": 1.0, "gold": -0.5},
    }


def lost(max_loss: float, after: dict[str, float], measure: str = "value") -> Any:
    bounds = {"prose": RetentionBound.model_validate({"max_loss": max_loss, "measure": measure})}
    given = rows({"a": -2.0, "b": -3.0}, measure=measure)
    [loss] = losses(given, rows(after, measure=measure), bounds, confidence=0.8, **SEEDS)
    return loss


def test_a_loss_is_allowed_up_to_the_bound_by_the_upper_end_of_its_interval() -> None:
    equal = {"a": -2.25, "b": -3.25}  # 0.25 lost on both items, whatever is drawn
    assert lost(0.25, equal).is_allowed
    assert not lost(0.2, equal).is_allowed
    assert str(lost(0.2, equal)) == "prose lost +0.2500 [+0.2500, +0.2500] on 2 items, over max_loss=0.2"
    uneven = {"a": -2.5, "b": -3.0}  # 0.25 on average; of two draws both are `a` in one of four, so that the end is 0.5
    assert lost(0.3, uneven).loss.estimate == 0.25
    assert lost(0.3, uneven).loss.high == 0.5
    assert not lost(0.3, uneven).is_allowed


def test_a_gain_is_no_loss() -> None:
    assert lost(0.0, {"a": -1.0, "b": -2.0}).loss.estimate == -1.0
    assert lost(0.0, {"a": -1.0, "b": -2.0}).is_allowed


def test_what_was_not_measured_of_both_is_not_allowed() -> None:
    loss = lost(9.0, {"c": -1.0})
    assert not loss.is_allowed
    assert str(loss) == "prose: no item was measured of both, and promotion.retention bounds its loss"


def test_a_bound_may_look_at_the_gold_choice() -> None:
    assert str(lost(0.0, {"a": -2.0, "b": -3.0}, "gold")).startswith("prose (gold) lost +0.0000")
