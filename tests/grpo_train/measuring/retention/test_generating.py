from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from configs.errors import RewardError
from configs.records import Completion, Problem
from configs.schema.measuring.retention import GenerateSuite
from grpo_train.measuring.retention import generating
from grpo_train.measuring.retention.generating import generate_rows
from grpo_train.policies.tiny_model import build_tiny_model, build_tiny_tokenizer
from grpo_train.sampling.generation import Sampling, sample
from reward_training.reward import Found, Unscored
from tests.grpo_train.conftest import make_problem

SUITE = GenerateSuite.model_validate(
    {
        "problems": {"kind": "reasoning_gym", "family": "gcd", "size": 4},
        "checker": {"name": "right"},
        "max_response_length": 8,
    }
)
PROBLEMS = [make_problem(f"{i} + 4 =", str(i + 4), split="retention") for i in range(4)]


def measured(write: Any, problems: list[Problem] = PROBLEMS, suite: GenerateSuite = SUITE) -> list[dict[str, Any]]:
    return generate_rows(write, problems, suite, "sums", policy_id="p", max_rows=8, max_unscored_share=0.25)


def says(texts: Sequence[str], problems: Sequence[Problem], sampling: Sampling, **how: Any) -> list[Completion]:
    assert (sampling.group_size, sampling.num_greedy, sampling.max_response_length) == (1, 1, 8)
    fields = {"index": 0, "prompt_ids": [], "token_ids": [1], "finish_reason": "stop", "logprobs": [0.0]}
    return [
        Completion(problem_key=problem.key, text=text, policy_id=how["policy_id"], step=0, seed=how["seed"], **fields)
        for problem, text in zip(problems, texts, strict=True)
    ]


def test_a_problem_counts_by_whether_its_response_is_right() -> None:
    rows = measured(partial(says, ["It is 4", "6", "So 6", "none"]))
    assert [row["value"] for row in rows] == [1.0, 0.0, 1.0, 0.0]  # golds are 4, 5, 6 and 7
    assert [row["item"] for row in rows] == [problem.key for problem in PROBLEMS]
    assert {row["suite"] for row in rows} == {"sums"}


def test_what_cannot_be_scored_is_no_item_and_much_of_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def leaving_out(number: int) -> None:
        monkeypatch.setattr(generating, "build_rewards", lambda *_: nullcontext([FirstUnscored(number)]))

    leaving_out(1)
    assert [row["item"] for row in measured(partial(says, "4567"))] == [problem.key for problem in PROBLEMS[1:]]
    leaving_out(2)  # a share of 0.5, over 0.25
    with pytest.raises(RewardError, match=r"could not score 2 of 4 completions in evaluation.retention.sums"):
        measured(partial(says, "4567"))


@dataclass(frozen=True)
class FirstUnscored:
    """A checker that takes everything for right, but cannot tell of the first `number` responses."""

    number: int
    name: str = "right"
    weight: float = 1.0

    def __call__(self, problems: Sequence[Problem], completions: Sequence[Completion]) -> Sequence[Found]:
        return [Unscored("timeout")] * self.number + [1.0] * (len(completions) - self.number)


def test_responses_are_greedy() -> None:
    tokenizer = build_tiny_tokenizer()
    write = partial(sample, build_tiny_model(tokenizer), tokenizer)
    greedy = write(PROBLEMS, Sampling(1, 0.0, 8), seed=7, policy_id="p")
    assert all(one.text.strip() for one in greedy)
    problems = [problem.model_copy(update={"answer": one.text}) for problem, one in zip(PROBLEMS, greedy, strict=True)]
    whole = SUITE.model_copy(update={"checker": SUITE.checker.model_copy(update={"extract": "whole"})})
    assert [row["value"] for row in measured(write, problems, whole)] == [1.0] * 4
