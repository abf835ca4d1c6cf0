from itertools import islice

import pytest
import torch

from configs.records import Completion
from grpo_train.batches import micro_batches, padded_logprobs, policy_kl, problem_batches, response_logprobs
from tests.grpo_train.conftest import make_problem

CPU = torch.device("cpu")
PROBLEMS = [make_problem(str(i)) for i in range(10)]


def completion(key: str, prompt: list[int], response: list[int], logprobs: list[float] | None = None) -> Completion:
    return Completion(
        problem_key=key,
        index=0,
        prompt_ids=prompt,
        token_ids=response,
        text="",
        finish_reason="stop",
        logprobs=logprobs or [-1.0] * len(response),
        policy_id="p",
        step=1,
        seed=0,
    )


COMPLETIONS = [
    completion("a", [7, 8, 9], [10, 11, 12]),
    completion("a", [7, 8, 9], [13]),
    completion("b", [20], [21, 22]),
    completion("b", [20], [23, 24, 25, 26, 27]),
]


def test_every_pass_asks_every_problem_once_and_no_batch_asks_one_twice():
    batches = list(islice(problem_batches(PROBLEMS, 4, seed=0, round=1), 10))
    asked = [problem.key for batch in batches for problem in batch]
    assert all(asked.count(problem.key) == 4 for problem in PROBLEMS)
    assert all(len({problem.key for problem in batch}) == 4 for batch in batches)
    assert sorted(asked[:10]) == sorted(problem.key for problem in PROBLEMS)


def test_order_depends_on_seed_round_and_pass():
    def keys(seed, round, start=0):
        return [
            p.key for b in islice(problem_batches(PROBLEMS, 5, seed=seed, round=round), start, start + 2) for p in b
        ]

    assert keys(0, 1) == keys(0, 1)
    assert len({tuple(keys(*place)) for place in [(0, 1), (1, 1), (0, 2), (0, 1, 2)]}) == 4


def test_too_few_problems_for_a_batch_are_refused_with_numbers():
    with pytest.raises(ValueError, match=r"11 problems.* 10 to train on"):
        next(problem_batches(PROBLEMS, 11, seed=0, round=1))


def test_micro_batches_hold_each_row_once_trimmed_to_their_own_width():
    batches = list(micro_batches(COMPLETIONS, [0, 1, 2, 3], 11, CPU))
    assert [batch.rows for batch in batches] == [[2, 3], [0, 1]]
    assert [tuple(batch.response_ids.shape) for batch in batches] == [(2, 5), (2, 3)]
    assert [tuple(batch.prompt_ids.shape) for batch in batches] == [(1, 1), (1, 3)]


@pytest.mark.parametrize("size", [1, 9, 11, 100])
def test_logprobs_and_gradient_equal_those_of_one_plain_forward_a_row(tiny, size):
    model, _ = tiny
    weights = {row: float(row + 1) for row in range(4)}

    expected = {}
    total = torch.zeros(())
    for row, c in enumerate(COMPLETIONS):
        logits = model(torch.tensor([c.prompt_ids + c.token_ids])).logits[0, len(c.prompt_ids) - 1 : -1] / 0.8
        expected[row] = logits.log_softmax(-1).gather(1, torch.tensor(c.token_ids)[:, None])[:, 0]
        total = total + weights[row] * expected[row].sum()
    total.backward()
    plain = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()

    for batch in micro_batches(COMPLETIONS, range(4), size, CPU):
        logprobs = response_logprobs(model, batch, 0.8)
        for line, row in enumerate(batch.rows):
            ours = logprobs[line][batch.mask[line].bool()]
            assert torch.allclose(ours, expected[row], atol=1e-5)
        row_weights = torch.tensor([weights[row] for row in batch.rows])
        ((logprobs * batch.mask).sum(dim=1) * row_weights).sum().backward()
    for parameter, gradient in zip(model.parameters(), plain, strict=True):
        assert torch.allclose(parameter.grad, gradient, atol=1e-5)


def test_kl_of_a_policy_from_itself_is_zero_and_from_a_shifted_one_is_the_k3_estimate(tiny):
    model, _ = tiny
    (batch,) = micro_batches(COMPLETIONS, range(4), 100, CPU)
    with torch.no_grad():
        logprobs = response_logprobs(model, batch, 1.0)
    own = {row: logprobs[line][batch.mask[line].bool()] for line, row in enumerate(batch.rows)}

    def kl(shift):
        rows = [c.model_copy(update={"logprobs": (own[row] - shift).tolist()}) for row, c in enumerate(COMPLETIONS)]
        return policy_kl(model, rows, max_tokens=11, temperature=1.0)

    assert kl(0.0) == pytest.approx([0.0] * 4, abs=1e-6)
    assert kl(0.5) == pytest.approx([torch.tensor(0.5).exp().item() - 1.5] * 4, rel=1e-4)


def test_sampled_logprobs_are_padded_like_the_responses():
    (batch,) = micro_batches(COMPLETIONS, [0, 1], 100, CPU)
    assert padded_logprobs(COMPLETIONS, batch).tolist() == [[-1, -1, -1], [-1, 0, 0]]
