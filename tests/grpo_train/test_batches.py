import pytest
import torch

from configs.records import Completion
from grpo_train.batches import padded_logprobs, prompt_blocks
from grpo_train.prompt_pass import PromptPass, known_logprobs, policy_kl

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


def test_blocks_hold_each_row_once_sorted_by_length_and_trimmed_to_their_own_width():
    blocks = list(prompt_blocks(COMPLETIONS, [0, 1, 2, 3], 6, CPU))
    assert [tuple(block.prompt_ids.shape) for block in blocks] == [(2, 3)]
    batches = blocks[0].micro_batches
    assert [batch.rows for batch in batches] == [[3], [0], [2, 1]]
    assert [tuple(batch.response_ids.shape) for batch in batches] == [(1, 5), (1, 3), (2, 2)]
    assert [batch.prompt_of.tolist() for batch in batches] == [[1], [0], [1, 0]]
    assert [len(block.prompt_ids) for block in prompt_blocks(COMPLETIONS, range(4), 5, CPU)] == [1, 1]


def test_padding_is_traded_against_passes():
    lengths = [200, 200, 10, 10, 10, 10]
    completions = [completion("a", [7], [8] * length) for length in lengths]

    def cuts(max_tokens):
        return [
            len(batch.rows) for b in prompt_blocks(completions, range(6), max_tokens, CPU) for batch in b.micro_batches
        ]

    assert cuts(10_000) == [2, 4]  # 440 tokens and 2 passes, against 1200 and 1
    assert cuts(399) == [1, 1, 4]
    assert cuts(20) == [1, 1, 2, 2]


def test_responses_to_two_wordings_of_a_problem_each_see_their_own_prompt():
    other = COMPLETIONS[1].model_copy(update={"prompt_ids": [5, 8, 9]})
    (block,) = prompt_blocks([COMPLETIONS[0], other], [0, 1], 100, CPU)
    assert block.prompt_ids[block.micro_batches[0].prompt_of].tolist() == [[7, 8, 9], [5, 8, 9]]


def test_block_knows_what_it_computes_beyond_its_tokens():
    # prompts of 3 and 1 token padded to 3, responses of 5, 3, 2 and 1 in passes of their own width
    (block,) = prompt_blocks(COMPLETIONS, range(4), 6, CPU)
    assert (block.num_computed, block.num_tokens) == (2 * 3 + 5 + 3 + 2 * 2, 4 + 11)


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

    for block in prompt_blocks(COMPLETIONS, range(4), size, CPU):
        prompts = PromptPass(model, block, 0.8)
        for batch in block.micro_batches:
            logprobs = prompts.logprobs(batch)
            for line, row in enumerate(batch.rows):
                ours = logprobs[line][batch.mask[line].bool()]
                assert torch.allclose(ours, expected[row], atol=1e-5)
            row_weights = torch.tensor([weights[row] for row in batch.rows])
            (logprobs.sum(dim=1) * row_weights).sum().backward()
        prompts.backward()
    for parameter, gradient in zip(model.parameters(), plain, strict=True):
        assert torch.allclose(parameter.grad, gradient, atol=1e-5)


def test_kl_of_a_policy_from_itself_is_zero_and_from_a_shifted_one_is_the_k3_estimate(tiny):
    model, _ = tiny
    ((batch, logprobs),) = known_logprobs(model, COMPLETIONS, max_tokens=100, temperature=1.0)
    own = {row: logprobs[line][batch.mask[line].bool()] for line, row in enumerate(batch.rows)}

    def kl(shift):
        rows = [c.model_copy(update={"logprobs": (own[row] - shift).tolist()}) for row, c in enumerate(COMPLETIONS)]
        return policy_kl(model, rows, max_tokens=11, temperature=1.0)

    assert kl(0.0) == pytest.approx([0.0] * 4, abs=1e-6)
    assert kl(0.5) == pytest.approx([torch.tensor(0.5).exp().item() - 1.5] * 4, rel=1e-4)


def test_sampled_logprobs_are_padded_like_the_responses():
    (block,) = prompt_blocks(COMPLETIONS, [0, 1], 100, CPU)
    assert padded_logprobs(COMPLETIONS, block.micro_batches[0]).tolist() == [[-1, -1, -1], [-1, 0, 0]]
