"""Weight schedules, and floors that cap the total."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from configs.schema.config import Config
from configs.schema.rewards import Floor, FormatRewardConfig, LengthRewardConfig, WeightSchedule
from reward_training.weighing import Weighing

BY_ROUND = WeightSchedule(over="rounds", points=[(1, 0.0), (3, 1.0)])
BY_STEP = WeightSchedule(over="steps", points=[(1, 1.0), (11, 0.5)])


@pytest.mark.parametrize(
    ("schedule", "round_index", "step", "factor"),
    [
        (None, 2, 5, 1.0), (BY_ROUND, 0, 1, 0.0), (BY_ROUND, 1, 9, 0.0), (BY_ROUND, 2, 1, 0.5), (BY_ROUND, 3, 1, 1.0),
        (BY_ROUND, 9, 1, 1.0), (BY_STEP, 1, 1, 1.0), (BY_STEP, 2, 6, 0.75), (BY_STEP, 1, 99, 0.5), (BY_STEP, 1, None, 0.5),
    ],
)  # fmt: skip
def test_a_schedule_multiplies_the_weight(
    schedule: WeightSchedule | None, round_index: int, step: int | None, factor: float
) -> None:
    reward = LengthRewardConfig(name="brief", target=1, limit=2, weight=0.2, schedule=schedule)
    assert Weighing.at([reward], round_index, step).weights == {"brief": pytest.approx(0.2 * factor)}


def test_total_is_capped_under_a_floor_and_a_missing_part_is_under_none() -> None:
    safe = FormatRewardConfig(name="safe", pattern="x", weight=0.5, floor=Floor(below=0.5, cap=0.1))
    brief = LengthRewardConfig(name="brief", target=1, limit=2, weight=1.0)
    weighing = Weighing.at([safe, brief], 1)
    assert weighing.total({"safe": 1.0, "brief": 1.0}) == 1.5
    assert weighing.total({"safe": 0.0, "brief": 1.0}) == 0.1
    assert weighing.total({"safe": 0.0, "brief": -3.0}) == -3.0
    assert weighing.total({"safe": None, "brief": 1.0}) == 1.0


def test_a_total_is_known_where_all_that_counts_is() -> None:
    """A response that a reward of weight 0, which only measures, could not score was in no preference pair of DPO."""
    safe = FormatRewardConfig(name="safe", pattern="x", weight=0.0, floor=Floor(below=0.5, cap=0.1))
    brief = LengthRewardConfig(name="brief", target=1, limit=2, weight=1.0)
    measured = LengthRewardConfig(name="measured", target=1, limit=2, weight=0.0)
    weighing = Weighing.at([safe, brief, measured], 1)
    assert weighing.known_total({"safe": 1.0, "brief": 0.5, "measured": None}) == 0.5
    assert weighing.known_total({"safe": None, "brief": 0.5, "measured": 1.0}) is None  # it may be under its floor
    assert weighing.known_total({"safe": 1.0, "brief": None, "measured": 1.0}) is None
    assert weighing.known_total({"measured": None}) is None
    assert weighing.known_total({}) is None


def test_points_that_go_back_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"points at \[2, 1\] do not go up; give each round once"):
        WeightSchedule(over="rounds", points=[(2, 0.0), (1, 1.0)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"combination": {"order": "normalize_then_sum"}}, r"floor of \['correct'\] caps a sum"),
        ({"evaluation": {"rewards": [{"name": "more", "kind": "outcome", "floor": {"below": 1}}]}}, "only measure"),
    ],
)
def test_floors_that_nothing_would_read_are_refused(changes: dict[str, object], message: str) -> None:
    settings = {
        "policy": {"path": "x"},
        "problems": {"sources": [{"kind": "jsonl", "path": "x"}]},
        "rewards": [{"name": "correct", "kind": "outcome", "floor": {"below": 0.5}}],
    }
    with pytest.raises(ValidationError, match=message):
        Config.model_validate(settings | changes)
