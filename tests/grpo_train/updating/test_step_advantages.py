"""Rewards of single steps become advantages of the tokens before their ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from configs.records import Completion, Score
from configs.schema.rewards import CombinationConfig
from grpo_train.sampling.decoding import Decoder
from grpo_train.updating.advantages import Advantages, group_advantages
from grpo_train.updating.step_advantages import Steps, add_steps, token_steps
from tests.grpo_train.updating.test_learner import gradient_of, learner, logprobs_of, written_by

EPSILON = 1e-4


def added(
    steps: Sequence[Steps],
    lengths: Sequence[int],
    outcome: Sequence[float] | None = None,
    weight: float = 1.0,
    **settings: Any,
) -> Advantages:
    """Of groups of two with an outcome reward in column 0 and the steps' in column 1."""
    values = np.zeros(len(steps)) if outcome is None else np.array(outcome)
    parts = np.stack([values, np.zeros(len(steps))], axis=1)
    combination = CombinationConfig.model_validate(settings)
    plain = group_advantages(parts, np.array([1.0, 0.0]), 2, scale=combination.scale)
    return add_steps(
        plain, steps, lengths, parts=parts[:, 1], column=1, weight=weight, group_size=2, combination=combination
    )


def test_worked_by_hand() -> None:
    # step rewards of the group: 1, 0 and 1; mean 2/3, std with Bessel's correction sqrt((1/9 + 4/9 + 1/9) / 2) = sqrt(1/3)
    std = (1 / 3) ** 0.5 + EPSILON
    good, bad = (1 / 3) / std, (-2 / 3) / std
    first, second = added([[(2, 1.0), (5, 0.0)], [(3, 1.0)]], [6, 4]).by_token or ()
    # tokens 1 and 2 are before both steps' ends, 3 to 5 before the second's, the last one (end of sequence) before none
    assert first.tolist() == pytest.approx([good + bad] * 2 + [bad] * 3 + [0.0])
    assert second.tolist() == pytest.approx([good] * 3 + [0.0])


def test_the_responses_own_advantage_is_added_to_each_token() -> None:
    found = added([[(1, 1.0)], [(1, 0.0)]], [2, 2], outcome=[1.0, 0.0], weight=0.5)
    # both rewards: values 1 and 0, mean 1/2, std sqrt(1/2)
    unit = 0.5 / (0.5**0.5 + EPSILON)
    assert found.of([0, 1], 3).tolist() == [
        pytest.approx([1.5 * unit, unit, 0.0]),
        pytest.approx([-1.5 * unit, -unit, 0.0]),
    ]
    assert found.means.tolist() == pytest.approx([1.25 * unit, -1.25 * unit])
    assert found.shares.tolist() == pytest.approx([0.8, 0.2])  # 1 against the mean over two tokens of 0.5 and 0


@pytest.mark.parametrize(("scale", "divisor"), [("none", 1.0), ("batch", np.std([1, 0, 1, 1], ddof=1) + EPSILON)])
def test_other_scales(scale: str, divisor: float) -> None:
    found = added([[(1, 1.0)], [(1, 0.0)], [(1, 1.0)], [(1, 1.0)]], [1] * 4, scale=scale).by_token or ()
    assert [float(row[0]) for row in found] == pytest.approx([0.5 / divisor, -0.5 / divisor, 0.0, 0.0])


def test_a_group_is_alive_where_its_outcomes_or_its_steps_differ() -> None:
    steps: list[Steps] = [[(1, 1.0)], [(1, 0.0)], [(1, 1.0)], [(1, 1.0)], [(1, 1.0)], [], [(1, 1.0)], [(1, 1.0)]]
    found = added(steps, [1] * 8, outcome=[0, 0, 0, 0, 0, 0, 1, 0])
    assert found.dead.tolist() == [False, True, True, False]
    assert found.moves.tolist() == [True, True, False, False, False, False, True, True]
    assert added(steps, [1] * 8, weight=0.0).dead.all()


def test_a_response_without_steps_stays_out_of_the_statistics() -> None:
    with_third = added([[(1, 1.0), (2, 0.0)], []], [2, 5]).by_token or ()
    unit = 0.5 / (0.5**0.5 + EPSILON)
    assert with_third[0].tolist() == pytest.approx([0.0, -unit])
    assert with_third[1].tolist() == [0.0] * 5


def test_a_batch_without_completions_has_no_advantages() -> None:
    found = added([], [])
    assert (found.by_token, found.means.size, found.moves.size, found.dead.size) == ((), 0, 0, 0)


def test_ends_in_the_text_become_ends_in_tokens(tiny_tokenizer) -> None:
    text = "1 + 1 = 2\n2 + 2 = 5"
    ids = tiny_tokenizer(text, add_special_tokens=False)["input_ids"]
    completion = Completion(
        problem_key="p", index=0, prompt_ids=[1], token_ids=[*ids, tiny_tokenizer.eos_token_id], text=text,
        finish_reason="stop", logprobs=[0.0] * (len(ids) + 1), policy_id="p", step=1, seed=0,
    )  # fmt: skip
    found = token_steps(
        Decoder(tiny_tokenizer), completion, Score(parts={}, total=0.0, steps=[(9, 1.0), (len(text), 0.0)])
    )
    assert [value for _, value in found] == [1.0, 0.0]
    assert [tiny_tokenizer.decode(completion.token_ids[:end]) for end, _ in found] == [text[:9], text]
    assert token_steps(Decoder(tiny_tokenizer), completion, Score(parts={}, total=0.0)) == []


def test_each_token_is_pushed_by_its_own_advantage(tiny) -> None:
    """Against the sum over tokens of advantage times log-probability, response by response."""
    model, _ = tiny
    completions = written_by(model)
    steps: list[Steps] = [[(1, 1.0), (len(c.token_ids), float(i % 3))] for i, c in enumerate(completions)]
    lengths = [len(c.token_ids) for c in completions]
    advantages = added(steps, lengths, outcome=[1, 0, 1, 1, 0, 0, 0.5, 0])
    for micro_batch_tokens in (1, 10_000):
        trained, found = learner(model, micro_batch_tokens=micro_batch_tokens), []
        step = trained._apply
        trained._apply = lambda step=step, found=found: (found.append(gradient_of(model)), step())[1]  # type: ignore[method-assign]
        trained.update(completions, advantages)
        model.zero_grad()
        for row, one in enumerate(completions):
            per_token = torch.tensor(advantages.of([row], lengths[row])[0], dtype=torch.float32)
            logprobs = logprobs_of(model, one.prompt_ids, one.token_ids)
            (-(per_token * logprobs).mean() / len(completions)).backward()
        expected = gradient_of(model)
        model.zero_grad()
        assert torch.allclose(found[0], expected, atol=1e-5 * float(expected.abs().max()))
