import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from configs.records import Completion
from grpo_train.updating.response_logprobs import (
    known_logprobs,
    micro_batches,
    padded_logprobs,
    policy_kl,
    response_logprobs,
)
from reward_training.transformer.packing import round_length
from reward_training.transformer.trial import layout_of


def completion(prompt: list[int], response: list[int], logprobs: list[float] | None = None) -> Completion:
    return Completion(
        problem_key=str(prompt),
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
    completion([7, 8, 9], [10, 11, 12]),
    completion([7, 8, 9], [13]),
    completion([20], [21, 22]),
    completion([20], [21, 24, 25, 26, 27]),
    completion([7, 8, 9], [10, 11, 30]),
    completion([7, 8], [9, 10, 11]),  # in the tree it is a part of the first
    completion([20], [21, 22]),
]
NUM = len(COMPLETIONS)


def plain_logprobs(model, c):
    logits = model(torch.tensor([c.prompt_ids + c.token_ids])).logits[0, len(c.prompt_ids) - 1 : -1] / 0.8
    return logits.log_softmax(-1).gather(1, torch.tensor(c.token_ids)[:, None])[:, 0]


def check_against_plain_forwards(model, size):
    """Values and the gradient of a weighted sum, against one forward pass a row."""
    weights = {row: float(row + 1) for row in range(NUM)}
    expected = {row: plain_logprobs(model, c) for row, c in enumerate(COMPLETIONS)}
    sum(weights[row] * expected[row].sum() for row in range(NUM)).backward()
    plain = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()

    seen = []
    for batch in micro_batches(model, COMPLETIONS, range(NUM), size):
        logprobs = response_logprobs(model, batch, 0.8)
        for line, row in enumerate(batch.rows):
            seen.append(row)
            torch.testing.assert_close(logprobs[line][batch.mask[line].bool()], expected[row], atol=1e-5, rtol=0)
            assert (logprobs[line][~batch.mask[line].bool()] == 0).all()
        row_weights = torch.tensor([weights[row] for row in batch.rows])
        (logprobs.sum(dim=1) * row_weights).sum().backward()
    assert sorted(seen) == list(range(NUM))
    for parameter, gradient in zip(model.parameters(), plain, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [1, 9, 100])
def test_logprobs_and_gradient_equal_those_of_one_plain_forward_a_row(tiny, size):
    check_against_plain_forwards(tiny[0], size)


def test_a_model_with_a_window_trains_on_rows_of_their_own():
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=3,
    )  # fmt: skip
    model = MistralForCausalLM(config).eval()
    assert layout_of(model, model.get_decoder())(64) == "own"
    check_against_plain_forwards(model, 100)
    (batch,) = micro_batches(model, COMPLETIONS, range(NUM), 100)
    assert batch.packed.input_ids.shape == (NUM, round_length(5))


def test_what_responses_begin_with_in_common_is_computed_once(tiny):
    model, _ = tiny
    (batch,) = micro_batches(model, COMPLETIONS, range(NUM), 100)
    # last tokens are not fed: 7 8 9 10 11, and 20 21 24 25 26
    assert batch.packed.num_tokens == 10
    assert batch.packed.num_computed == round_length(10)
    assert batch.response_ids.shape == batch.mask.shape == (NUM, 5)


def test_a_next_token_that_two_responses_share_is_chosen_once(tiny, monkeypatch):
    import grpo_train.updating.response_logprobs as module

    chosen = []
    original = module.token_logprobs

    def spy(hidden, *others):
        chosen.append(len(hidden))
        return original(hidden, *others)

    monkeypatch.setattr(module, "token_logprobs", spy)
    model, _ = tiny
    for batch in micro_batches(model, COMPLETIONS, range(NUM), 100):
        response_logprobs(model, batch, 1.0)
    # after 7 8: 9; after 9: 10, 13; after 10: 11; after 11: 12, 30; after 20: 21, 22, 24, 25, 26, 27
    assert chosen == [round_length(12)]


def test_kl_of_a_policy_from_itself_is_zero_and_from_a_shifted_one_is_the_k3_estimate(tiny):
    model, _ = tiny
    ((batch, logprobs),) = known_logprobs(model, COMPLETIONS, max_tokens=100, temperature=1.0)
    own = {row: logprobs[line][batch.mask[line].bool()] for line, row in enumerate(batch.rows)}

    def kl(shift):
        rows = [c.model_copy(update={"logprobs": (own[row] - shift).tolist()}) for row, c in enumerate(COMPLETIONS)]
        return policy_kl(model, rows, max_tokens=11, temperature=1.0)

    assert kl(0.0) == pytest.approx([0.0] * NUM, abs=1e-6)
    assert kl(0.5) == pytest.approx([torch.tensor(0.5).exp().item() - 1.5] * NUM, rel=1e-4)


def test_sampled_logprobs_are_padded_like_the_responses(tiny):
    (batch,) = micro_batches(tiny[0], COMPLETIONS, [0, 1], 100)
    assert padded_logprobs(COMPLETIONS, batch).tolist() == [[-1, -1, -1], [-1, 0, 0]]
