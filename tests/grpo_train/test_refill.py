"""Groups of two whose problems say whether they live: answer "dead" or anything else."""

from typing import Any, cast

import numpy as np

from configs.reader import load_config
from configs.records import Completion, Score
from grpo_train.groups import Groups
from grpo_train.refill import refill
from grpo_train.rollouts import Rollouts, StepSettings
from reward_training.weighing import Weighing
from tests.grpo_train.conftest import make_problem
from tests.paths import TINY
from tests.reward_training.test_scorer import Joint


def groups(*answers: str) -> Groups:
    problems = [make_problem(f"question {i}", answer) for i, answer in enumerate(answers)]
    rows = [(problem, index) for problem in problems for index in range(2)]
    completions = [
        Completion(
            problem_key=problem.key,
            index=index,
            prompt_ids=[1],
            token_ids=[2],
            text=f"{problem.answer} {index}",
            finish_reason="stop",
            logprobs=[-1.0],
            policy_id="p",
            step=1,
            seed=0,
        )
        for problem, index in rows
    ]
    scores = [Score(parts={"x": 1.0}, total=float(index)) for _, index in rows]
    return Groups(problems, completions, scores, [False] * len(rows))


def is_dead(batch: Groups) -> np.ndarray:
    return np.array([problem.answer == "dead" for problem in batch.problems])


def answers(batch: Groups) -> list[str]:
    return [problem.answer for problem in batch.problems]


class Asker:
    """Gives the written-down answers in order, and remembers what it was asked for."""

    def __init__(self, *answers: str) -> None:
        self.left = list(answers)
        self.calls: list[tuple[int, int]] = []

    def __call__(self, number: int, wanted: int) -> Groups:
        self.calls.append((number, wanted))
        given, self.left = self.left[:wanted], self.left[wanted:]
        return groups(*given)


def test_fresh_groups_take_the_places_of_dead_ones_until_none_is_dead():
    ask = Asker("e", "dead", "f", "g")
    filled = refill(groups("a", "dead", "c", "dead"), 5, is_dead=is_dead, ask=ask)
    assert answers(filled.batch) == ["a", "e", "c", "f"]
    assert answers(filled.refused) == ["dead"] * 3
    assert ask.calls == [(1, 2), (2, 1)]
    assert filled.num_refills == 2
    assert [completion.text for completion in filled.batch.completions[2:4]] == ["e 0", "e 1"]
    assert [score.total for score in filled.batch.scores] == [0.0, 1.0] * 4


def test_bound_is_respected_and_what_is_dead_stays():
    ask = Asker(*["dead"] * 20)
    filled = refill(groups("a", "dead", "dead"), 2, is_dead=is_dead, ask=ask)
    assert ask.calls == [(1, 2), (2, 2)]
    assert answers(filled.batch) == ["a", "dead", "dead"]
    assert (len(filled.refused.problems), filled.num_refills) == (4, 2)


def test_off_asks_nothing():
    batch, ask = groups("a", "dead"), Asker("e")
    filled = refill(batch, 0, is_dead=is_dead, ask=ask)
    assert (filled.batch, filled.refused, filled.num_refills, ask.calls) == (batch, Groups(), 0, [])


def test_a_batch_without_dead_groups_asks_nothing():
    ask = Asker("e")
    assert refill(groups("a", "b"), 3, is_dead=is_dead, ask=ask).num_refills == 0
    assert ask.calls == []


def test_when_problems_run_out_the_batch_keeps_its_size():
    ask = Asker("e")
    filled = refill(groups("dead", "b", "dead"), 3, is_dead=is_dead, ask=ask)
    assert answers(filled.batch) == ["e", "b", "dead"]
    assert (answers(filled.refused), filled.num_refills) == (["dead"], 1)


def test_a_rank_without_a_fresh_problem_scores_with_the_others() -> None:
    """Where fewer groups are dead than there are ranks, the others would wait for it in a reward of all ranks."""
    joint, nobody = Joint(), cast(Any, None)
    rollouts = Rollouts(nobody, nobody, [joint], load_config(TINY), round_index=1)
    assert rollouts._sample_and_score(StepSettings(1, Weighing({"joint": 1.0})), 1, []) == []
    assert joint.calls == [0]
