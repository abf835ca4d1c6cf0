import pytest
import torch

from configs.records import Completion
from grpo_train.batches import micro_batches, padded_logprobs, policy_kl, response_logprobs

CPU = torch.device("cpu")


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


def test_micro_batches_hold_each_row_once_trimmed_to_their_own_width():
    batches = list(micro_batches(COMPLETIONS, [0, 1, 2, 3], 11, CPU))
    assert [batch.rows for batch in batches] == [[2, 3], [0, 1]]
    assert [tuple(batch.response_ids.shape) for batch in batches] == [(2, 5), (2, 3)]
    assert [tuple(batch.prompt_ids.shape) for batch in batches] == [(1, 1), (1, 3)]


def test_one_problem_asked_in_two_wordings_keeps_each_response_with_its_own_prompt():
    worded = [COMPLETIONS[0], completion("a", [7, 5], [13])]
    (batch,) = micro_batches(worded, [0, 1], 100, CPU)
    prompts = [batch.prompt_ids[i][batch.prompt_mask[i].bool()].tolist() for i in batch.prompt_of.tolist()]
    assert dict(zip(batch.rows, prompts, strict=True)) == {0: [7, 8, 9], 1: [7, 5]}


def test_a_micro_batch_knows_what_it_computes_beyond_its_tokens():
    # rows of 1, 5, 3 and 1 tokens and prompts of 1 and 3: 2 x 3 + 4 x 5 positions hold 4 + 11 tokens
    (batch,) = micro_batches(COMPLETIONS, [0, 1, 2, 3], 100, CPU)
    assert (batch.num_computed, batch.num_tokens) == (26, 4 + 11)


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
