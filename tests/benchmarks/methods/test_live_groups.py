"""What the benchmark of living groups counts."""

from __future__ import annotations

from benchmarks.methods.live_groups import living_share
from configs.schema.problems import NoCurriculum, PredictedCurriculum
from grpo_train.problems.picking.pass_rates import Measured, facts
from tests.grpo_train.conftest import make_problem


def test_the_share_is_of_all_groups_that_are_picked() -> None:
    """Of 192 problems half are half right and half all wrong, which their question shows; 96 are picked."""
    train = [make_problem(str(i)).model_copy(update={"prompt": "9" * (1 + i % 2)}) for i in range(192)]
    rates = {problem.key: 0.5 * (i % 2) for i, problem in enumerate(train)}
    before = [Measured(problem.source, facts(problem), rates[problem.key]) for problem in train[:40]]
    assert 0.3 < living_share(train, rates, NoCurriculum(), before, seed=0) < 0.7
    assert living_share(train, rates, PredictedCurriculum(explore=0.0), before, seed=0) == 1.0
