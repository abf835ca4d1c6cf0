"""What a reward returns is one value for each completion, in their order, or refused by name."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from configs.errors import RewardError
from configs.records import Completion, Problem
from configs.schema.rewards import ProcessRewardConfig
from reward_training.reward import Unscored
from reward_training.rewards.process import ProcessReward
from reward_training.rewards.python_forms import Caller
from reward_training.scorer import score

Batch = tuple[list[Problem], list[Completion]]


@pytest.fixture
def batch(make_problem: Callable[..., Problem], make_completion: Callable[..., Completion]) -> Batch:
    return [make_problem()] * 3, [make_completion(f"text {i}", index=i) for i in range(3)]


@dataclass
class Mine:
    """A reward that returns what `call` does."""

    call: Callable[..., Any]
    name: str = "mine"
    weight: float = 1.0

    def __call__(self, problems: Any, completions: Any) -> Any:
        return self.call(problems, completions)


def rewards_that_return(make: Callable[[], Any]) -> dict[str, Mine]:
    """A reward of ours, and functions in the forms of Regroup and TRL."""
    return {
        "reward": Mine(lambda problems, completions: make()),
        "regroup": Mine(Caller(lambda problems, completions: make(), "m:f", asyncio.run)),
        "trl": Mine(Caller(lambda completions, **columns: make(), "m:f", asyncio.run)),
    }


FORMS = tuple(rewards_that_return(list))


def endless() -> Iterator[float]:
    while True:
        yield 1.0


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("value", "what"),
    [
        ({"a": 1.0, "b": 0.0, "c": 0.5}, "a dict, which has an order of its own"),
        ({0.0, 0.5, 1.0}, "a set, which"),
        (frozenset({0.0, 0.5, 1.0}), "a frozenset, which"),
        ({"a": 1.0, "b": 0.0, "c": 0.5}.values(), "a dict_values, which"),
        ({1.0: "a", 0.0: "b", 0.5: "c"}.keys(), "a dict_keys, which"),
        (Counter("abc"), "a Counter, which"),
        ("101", "'101';"),
        (b"101", "a bytes;"),
        (None, "None;"),
        (True, "True;"),
        (0.5, "0.5;"),
        (np.array(0.5), r"a ndarray of shape \(\);"),
        (np.ones((3, 1)), r"a ndarray of shape \(3, 1\);"),
        (np.ones((1, 3)), r"a ndarray of shape \(1, 3\);"),
        (torch.ones(3, 2), r"a Tensor of shape \(3, 2\);"),
        (torch.tensor(1.0), r"a Tensor of shape \(\);"),
        (pd.Series([1.0, 0.0, 0.5], index=[2, 0, 1]), r"a Series with an index of its own, \[2, 0, 1\];"),
        (pd.Series({"a": 1.0, "b": 0.0, "c": 0.5}), "a Series with an index of its own"),
        (pd.DataFrame({"score": [1.0, 0.0, 0.5]}), r"a DataFrame of shape \(3, 1\);"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_sequence_in_the_order_of_the_completions_is_refused(
    value: Any, what: str, form: str, batch: Batch
) -> None:
    """A dict gave its keys, a set its members in the order of their hashes, a text its digits."""
    who = "reward 'mine'" if form == "reward" else "function='m:f'"
    with pytest.raises(RewardError, match=f"^{who} returned {what}.*return a list with a number for each completion"):
        score(*batch, [rewards_that_return(lambda: value)[form]])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("make", [endless, lambda: iter([1.0, 0.0]), lambda: np.ones(4), lambda: pd.Series([1.0])])
def test_another_number_of_values_is_refused(make: Callable[[], Any], form: str, batch: Batch) -> None:
    """One that never ends did not end."""
    with pytest.raises(RewardError, match=r"reward 'mine' .* \d values for 3 completions"):
        score(*batch, [rewards_that_return(make)[form]])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "make",
    [
        lambda: [1, 0, 0.5],
        lambda: (True, False, 0.5),
        lambda: iter([1.0, 0.0, 0.5]),
        lambda: np.array([1.0, 0.0, 0.5], dtype=np.float32),
        lambda: torch.tensor([1.0, 0.0, 0.5]),
        lambda: pd.Series([1.0, 0.0, 0.5]),
    ],
)
def test_lists_iterators_and_flat_arrays_are_taken_in_their_order(
    make: Callable[[], Any], form: str, batch: Batch
) -> None:
    scores = score(*batch, [rewards_that_return(make)[form]])
    assert [row.parts["mine"] for row in scores] == [1.0, 0.0, 0.5]


@pytest.mark.parametrize("value", ["1.0", b"1", np.array([1.0]), torch.ones(1), {"score": 1.0}, [1.0], 1j, 10**400])
def test_a_text_or_an_array_is_no_number(value: Any, batch: Batch) -> None:
    """`float` takes the first four."""
    with pytest.raises(RewardError, match=r"reward 'mine' on problem .*, text 'text 1', returned"):
        score(*batch, [Mine(lambda problems, completions: [0.0, value, 1.0])])


def test_steps_are_scored_by_numbers_of_any_type(
    make_problem: Callable[..., Problem], make_completion: Callable[..., Completion]
) -> None:
    """Those of numpy were left out, and the response had the value of one without steps."""
    values = [np.float32(0.5), 1, Unscored("slow"), np.float64(0.0)]
    reward = ProcessReward(ProcessRewardConfig(name="steps", checked_by="mine"), Mine(lambda problems, texts: values))
    assert reward([make_problem()], [make_completion("a\nb\nc\nd")]) == [0.5]  # mean of 0.5, 1 and 0


def test_a_reward_that_ends_the_process_is_an_error_of_its_own(batch: Batch) -> None:
    """Otherwise the command would end there with the reward's exit code, 0 among them."""
    for name, reward in rewards_that_return(lambda: sys.exit(0)).items():
        with pytest.raises(RewardError, match="raised SystemExit: 0; mend the reward"):
            score(*batch, [reward])
        assert name
