import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import count, islice
from typing import Any

import numpy as np
import pytest

from configs.errors import ConfigError
from configs.records import Problem
from configs.schema.problems import (
    BandCurriculum,
    Curriculum,
    NoCurriculum,
    PredictedCurriculum,
    ThresholdCurriculum,
)
from configs.seeds import rng_for
from grpo_train.problems.picking.curriculum import ProblemPicker
from grpo_train.problems.picking.pass_rates import Measured, facts
from tests.grpo_train.conftest import make_problem

PROBLEMS = [make_problem(str(i)) for i in range(10)]
KEYS = [problem.key for problem in PROBLEMS]
GRADED = [problem.model_copy(update={"difficulty": i / 10}) for i, problem in enumerate(PROBLEMS)]
"""difficulties 0.0, 0.1, ..., 0.9"""


def picker(problems: Sequence[Problem] = PROBLEMS, config: Curriculum | None = None, **options: Any) -> ProblemPicker:
    return ProblemPicker(problems, config or NoCurriculum(), **({"seed": 0, "round_index": 1} | options))


def step(chooser: ProblemPicker, number: int, rates: dict[str, float] | None = None) -> list[Problem]:
    """One step: the problems that it asks."""
    picked = chooser.pick(number)
    chooser.end_step(rates or {})
    return picked


def places(problems: Sequence[Problem]) -> set[int]:
    return {KEYS.index(problem.key) for problem in problems}


# ---- no curriculum --------------------------------------------------------------------------------------------------


def passes(num_problems: int, num_per_batch: int, *, seed: int, round_index: int) -> Iterator[list[int]]:
    """Batches as they are without a curriculum: whole passes, each in its own order, a batch filled from the next one."""
    waiting: list[int] = []
    for epoch in count():
        order = rng_for(seed, "problem order", round_index=round_index, step=epoch).permutation(num_problems).tolist()
        carried = set(waiting)
        waiting += [i for i in order if i not in carried] + [i for i in order if i in carried]
        while len(waiting) >= num_per_batch:
            yield waiting[:num_per_batch]
            waiting = waiting[num_per_batch:]


@pytest.mark.parametrize(("number", "seed", "round_index"), [(4, 0, 1), (3, 5, 2), (7, 1, 1), (10, 2, 3), (1, 0, 1)])
def test_without_a_curriculum_the_order_is_pass_after_pass(number, seed, round_index):
    chooser = picker(seed=seed, round_index=round_index)
    expected = [
        [KEYS[i] for i in batch] for batch in islice(passes(10, number, seed=seed, round_index=round_index), 30)
    ]
    assert [[problem.key for problem in step(chooser, number)] for _ in range(30)] == expected


def test_every_pass_asks_every_problem_once_and_no_batch_asks_one_twice():
    chooser = picker()
    batches = [step(chooser, 4) for _ in range(10)]
    asked = [problem.key for batch in batches for problem in batch]
    assert all(asked.count(key) == 4 for key in KEYS)
    assert all(len(places(batch)) == 4 for batch in batches)
    assert sorted(asked[:10]) == sorted(KEYS)


def test_order_depends_on_seed_round_and_pass():
    def keys(seed: int, round_index: int, skipped: int = 0) -> tuple[str, ...]:
        chooser = picker(seed=seed, round_index=round_index)
        batches = [step(chooser, 5) for _ in range(skipped + 2)]
        return tuple(problem.key for batch in batches[skipped:] for problem in batch)

    assert keys(0, 1) == keys(0, 1)
    assert len({keys(*place) for place in [(0, 1), (1, 1), (0, 2), (0, 1, 2)]}) == 4


def test_too_few_problems_for_a_batch_are_refused_with_numbers():
    with pytest.raises(ConfigError, match=r"11 problems.* 10 to train on"):
        picker().pick(11)


# ---- fresh problems within a step -----------------------------------------------------------------------------------


def test_fresh_problems_of_a_step_come_next_in_order_and_count_as_seen():
    chooser, plain = picker(), picker()
    asked = [*chooser.pick(4), *chooser.pick_more(2)]
    assert chooser.end_step({})["curriculum/epoch"] == pytest.approx(0.6)
    asked += step(chooser, 4)
    assert [problem.key for problem in asked] == [problem.key for problem in step(plain, 10)]


def test_a_step_never_asks_a_problem_twice_and_gets_fewer_where_none_are_left():
    chooser = picker()
    step(chooser, 7)
    asked = [*chooser.pick(4), *chooser.pick_more(3), *chooser.pick_more(9)]
    assert len(asked) == 10
    assert places(asked) == set(range(10))
    assert chooser.pick_more(1) == []
    chooser.end_step({})
    assert len(chooser.pick(10)) == 10


# ---- threshold ------------------------------------------------------------------------------------------------------


def test_threshold_rises_by_slope_with_the_fractional_epoch():
    chooser = picker(GRADED, ThresholdCurriculum(start=0.3, slope=0.5))
    thresholds = []
    for _ in range(20):
        allowed = min(1.0, 0.3 + 0.5 * chooser.epoch)
        picked = chooser.pick(2)
        assert all(problem.difficulty <= allowed for problem in picked)
        thresholds.append(chooser.end_step({})["curriculum/threshold"])
    # two of ten problems a step: 0.2 epochs, which add 0.1
    assert thresholds[:3] == pytest.approx([0.4, 0.5, 0.6])
    assert thresholds[-1] == 1.0


def test_easy_problems_are_passed_over_again_until_harder_ones_fit_and_those_come_at_once():
    chooser = picker(GRADED, ThresholdCurriculum(start=0.3, slope=0.0))
    asked = [KEYS.index(problem.key) for _ in range(4) for problem in step(chooser, 2)]
    # 0.0 to 0.3 fit: four problems, twice each
    assert sorted(asked) == [0, 0, 1, 1, 2, 2, 3, 3]
    chooser.config = ThresholdCurriculum(start=0.4, slope=0.0)
    assert 4 in places(step(chooser, 1))


def test_where_fewer_fit_than_a_batch_the_next_easiest_are_let_in_and_counted():
    chooser = picker(GRADED, ThresholdCurriculum(start=0.15, slope=0.0))
    assert places(chooser.pick(5)) == {0, 1, 2, 3, 4}
    metrics = chooser.end_step({})
    assert (metrics["curriculum/widened"], metrics["curriculum/eligible_share"]) == (3.0, 0.2)
    assert places(chooser.pick(2)) == {0, 1}
    assert chooser.end_step({})["curriculum/widened"] == 0.0


def test_threshold_without_difficulties_is_refused_with_the_remedy():
    with pytest.raises(ConfigError, match=r"10 of 10 training problems have no difficulty.*columns\.difficulty"):
        picker(config=ThresholdCurriculum())


def test_unseen_problems_have_the_difficulty_of_their_source_as_the_policy_finds_it():
    hard = [problem.model_copy(update={"source": "hard"}) if i >= 5 else problem for i, problem in enumerate(PROBLEMS)]
    chooser = picker(hard, ThresholdCurriculum(difficulty="policy", start=0.5, slope=0.0))
    chooser.pick(1)
    # one problem of each source was asked: 3 of 4 right, 1 of 4 right
    chooser.end_step({KEYS[0]: 0.75, KEYS[5]: 0.25})
    for _ in range(5):
        assert max(places(step(chooser, 2))) < 5


def test_before_a_source_was_seen_its_difficulty_is_what_the_regeneration_found():
    hard = [problem.model_copy(update={"source": "hard"}) if i >= 5 else problem for i, problem in enumerate(PROBLEMS)]
    easy_first = ThresholdCurriculum(difficulty="policy", start=0.5, slope=0.0)
    measured = {"epoch": 0.0, "rates": {}, "sources": {"test": 0.75, "hard": 0.25}}
    assert places(picker(hard, easy_first, handed_on=measured).pick(5)) == set(range(5))


# ---- band -----------------------------------------------------------------------------------------------------------


def test_band_keeps_unseen_problems_and_those_with_signal():
    chooser = picker(config=BandCurriculum(low=0.2, high=0.8))
    chooser.pick(1)
    chooser.end_step({KEYS[0]: 0.0, KEYS[1]: 1.0, KEYS[2]: 0.5, KEYS[3]: 0.2})
    metrics = []
    for _ in range(4):
        assert places(chooser.pick(2)) <= set(range(2, 10))
        metrics.append(chooser.end_step({}))
    assert {values["curriculum/eligible_share"] for values in metrics} == {0.8}


def test_band_that_is_too_narrow_lets_in_the_nearest():
    chooser = picker(config=BandCurriculum(low=0.4, high=0.6))
    chooser.pick(1)
    chooser.end_step(dict(zip(KEYS, [0.5, 0.3, 0.8, *[0.0] * 7], strict=True)))
    # in the band: 0.5; next 0.3 is 0.1 away, then 0.8 is 0.2 away
    assert places(chooser.pick(3)) == {0, 1, 2}
    assert chooser.end_step({})["curriculum/widened"] == 2.0


def test_pass_rates_run_and_are_forgotten():
    chooser = picker(config=BandCurriculum(forget_after=0.5))
    chooser.pick(1)
    chooser.end_step({KEYS[0]: 0.0})
    chooser.pick(1)
    chooser.end_step({KEYS[0]: 1.0})
    # half of the way from 0 to 1, at epoch 0.2
    assert chooser.rates[KEYS[0]] == (0.5, pytest.approx(0.2))
    chooser.pick(1)
    chooser.end_step({KEYS[1]: 1.0})
    assert chooser.end_step({})["curriculum/eligible_share"] == 0.9
    step(chooser, 6)
    # epoch 0.9: what was measured at 0.3 no longer counts
    assert chooser.end_step({})["curriculum/eligible_share"] == 1.0


# ---- predicted ------------------------------------------------------------------------------------------------------

MIXED = [
    make_problem(str(i)).model_copy(
        update={"source": "sums", "prompt": f"{10 ** (i % 3)} + {10 ** (i % 3)}", "answer": "2"}
    )
    for i in range(300)
]
"""a third each of numbers of one, two and three digits"""


def found_rate(problem: Problem, rng: np.random.Generator) -> float:
    """Of a group of eight responses of a policy that can do small numbers, cannot do large ones, and half of those between."""
    chance = {"1 + 1": 1.0, "10 + 10": 0.5, "100 + 100": 0.0}[str(problem.prompt)]
    return float(rng.binomial(8, chance)) / 8


def living_share(config: Curriculum, regenerated: Sequence[Measured] = ()) -> float:
    """Of the groups of ten steps of eight problems, those in which the responses differ."""
    handed_on = {"epoch": 0.0, "rates": {}, "regenerated": [asdict(row) for row in regenerated]}
    chooser, rng = picker(MIXED, config, handed_on=json.loads(json.dumps(handed_on))), np.random.default_rng(0)
    rates = []
    for _ in range(10):
        asked = chooser.pick(8)
        rates.append({problem.key: found_rate(problem, rng) for problem in asked})
        chooser.end_step(rates[-1])
    return float(np.mean([0 < rate < 1 for step_rates in rates for rate in step_rates.values()]))


def test_predicted_problems_make_living_groups_from_the_first_step_if_the_regeneration_measured_others() -> None:
    rng = np.random.default_rng(1)
    before = [Measured("sums", facts(problem), found_rate(problem, rng)) for problem in MIXED[:60]]
    plain = living_share(NoCurriculum())
    predicted = PredictedCurriculum(keep=0.3, explore=0.0)
    assert plain < 0.45
    assert living_share(predicted, before) > 0.95  # two groups in 256 are all right or all wrong by chance
    assert plain + 0.2 < living_share(predicted) < 1.0  # learned in training alone
    assert 0.6 < living_share(PredictedCurriculum(keep=0.3, explore=0.2), before) < 1.0


def test_about_the_wanted_share_of_what_is_asked_is_explored() -> None:
    rng = np.random.default_rng(1)
    before = [asdict(Measured("sums", facts(problem), found_rate(problem, rng))) for problem in MIXED[:60]]
    chooser = picker(
        MIXED,
        PredictedCurriculum(keep=1 / 3, explore=0.25),
        handed_on={"epoch": 0.0, "rates": {}, "regenerated": before},
    )
    asked = [problem.prompt for _ in range(12) for problem in step(chooser, 8)]
    assert 0.15 < np.mean([prompt != "10 + 10" for prompt in asked]) < 0.35


def test_the_calibration_is_of_problems_that_are_asked_for_the_first_time() -> None:
    before = [asdict(Measured("sums", facts(problem), 0.5)) for problem in MIXED[:60]]
    chooser = picker(MIXED, PredictedCurriculum(), handed_on={"epoch": 0.0, "rates": {}, "regenerated": before})
    first, second = (problem.key for problem in chooser.pick(2))
    metrics = chooser.end_step({first: 1.0, second: 0.5})
    assert metrics["curriculum/predicted_rate"] == pytest.approx(0.5, abs=1e-6)
    assert metrics["curriculum/found_rate"] == 0.75
    assert metrics["curriculum/prediction_error"] == pytest.approx(np.sqrt(0.5**2 / 2), abs=1e-6)
    chooser.pick(2)
    assert "curriculum/found_rate" not in chooser.end_step({first: 0.0})
    assert "curriculum/found_rate" not in picker(config=BandCurriculum()).end_step({KEYS[0]: 0.0})


# ---- state ----------------------------------------------------------------------------------------------------------

KINDS = [
    (PROBLEMS, NoCurriculum()),
    (GRADED, ThresholdCurriculum(start=0.2, slope=0.3)),
    (PROBLEMS, ThresholdCurriculum(difficulty="policy", start=0.5)),
    (PROBLEMS, BandCurriculum(low=0.3, high=0.7)),
    (GRADED, PredictedCurriculum(keep=0.4, explore=0.2)),
]


def walk(chooser: ProblemPicker, first: int, last: int) -> list[list[str]]:
    """Keys of steps that ask three problems, and two more now and then; rates depend on the step."""
    asked = []
    for number in range(first, last):
        picked = [*chooser.pick(3), *(chooser.pick_more(2) if number % 2 else [])]
        chooser.end_step({problem.key: ((number * 7 + i) % 5) / 4 for i, problem in enumerate(picked)})
        asked.append([problem.key for problem in picked])
    return asked


@pytest.mark.parametrize(("problems", "config"), KINDS, ids=["none", "data", "policy", "band", "predicted"])
def test_a_restored_picker_goes_on_as_if_nothing_had_happened(problems, config):
    whole = picker(problems, config, handed_on={"epoch": 0.25, "rates": {}})
    walk(whole, 0, 5)
    again = picker(problems, config)
    again.restore(json.loads(json.dumps(whole.state())))
    assert walk(again, 5, 15) == walk(whole, 5, 15)
    assert again.state() == whole.state()


def test_a_step_may_be_picked_before_the_one_before_it_has_ended():
    """Of ten problems eight are picked; the next three may be of the first four again, and are told of the step that asks them."""
    chooser = picker(config=BandCurriculum(low=0.3, high=0.7))
    first, second = chooser.pick(4), chooser.pick(4)
    assert not places(first) & places(second)
    assert chooser.end_step(dict.fromkeys([problem.key for problem in first], 0.0))["curriculum/widened"] == 0
    third = chooser.pick(9)  # six fit: those of the second step, and two that were never asked
    assert len(places(third)) == 9
    again = picker(config=BandCurriculum(low=0.3, high=0.7))
    again.restore(json.loads(json.dumps(chooser.state())))
    for one in (chooser, again):
        assert [one.end_step({})["curriculum/widened"] for _ in range(2)] == [0, 3]


def test_the_next_round_goes_on_from_epoch_and_pass_rates():
    first = picker(config=BandCurriculum())
    walk(first, 0, 4)
    handed_on = json.loads(json.dumps(first.handed_on()))
    second = picker(config=BandCurriculum(), round_index=2, handed_on=handed_on)
    # 4 steps of 3 problems and 2 of 2 more, of ten
    assert second.epoch == first.epoch == pytest.approx(1.6)
    assert second.rates == first.rates
    assert second.handed_on() == handed_on
