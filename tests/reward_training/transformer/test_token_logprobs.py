"""Log-probabilities in chunks, against torch's log-softmax in float64."""

import pytest
import torch

from grpo_train.policies.tiny_model import build_tiny_model, build_tiny_tokenizer
from reward_training.transformer import token_logprobs as chunked
from reward_training.transformer.token_logprobs import plain_head, token_logprobs


@pytest.mark.parametrize("num_rows", [1, 5, 8, 13])
def test_values_and_gradients_equal_those_of_a_log_softmax(num_rows, monkeypatch):
    monkeypatch.setattr(chunked, "CHUNK", 5)
    monkeypatch.setattr(chunked, "SLICE", 2)
    torch.manual_seed(0)
    hidden, weight = (torch.randn(n, 6, dtype=torch.float64, requires_grad=True) for n in (num_rows, 11))
    targets, upstream = torch.randint(11, (num_rows,)), torch.randn(num_rows)
    expected = ((hidden @ weight.T) / 0.7).log_softmax(dim=1).gather(1, targets[:, None]).squeeze(1)
    expected.backward(upstream.double())

    ours_hidden, ours_weight = (t.detach().float().requires_grad_() for t in (hidden, weight))
    ours = token_logprobs(ours_hidden, ours_weight, targets, 0.7)
    ours.backward(upstream)
    assert torch.allclose(ours.double(), expected, atol=1e-5)
    assert torch.allclose(ours_hidden.grad.double(), hidden.grad, atol=1e-5)
    assert torch.allclose(ours_weight.grad.double(), weight.grad, atol=1e-5)


@pytest.mark.parametrize("num_rows", [4, 13])
def test_a_second_backward_pass_gives_the_same_gradients(num_rows, monkeypatch):
    monkeypatch.setattr(chunked, "CHUNK", 5)
    hidden, weight = torch.randn(num_rows, 6, requires_grad=True), torch.randn(11, 6, requires_grad=True)
    total = token_logprobs(hidden, weight, torch.randint(11, (num_rows,)), 0.7).sum()
    first = torch.autograd.grad(total, [hidden, weight], retain_graph=True)
    second = torch.autograd.grad(total, [hidden, weight])
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other)


def test_frozen_weight_gets_no_gradient_and_the_hidden_states_do():
    hidden, weight = torch.randn(3, 4, requires_grad=True), torch.randn(5, 4)
    token_logprobs(hidden, weight, torch.tensor([0, 4, 2]), 1.0).sum().backward()
    assert weight.grad is None
    assert hidden.grad.abs().sum() > 0


def test_head_that_does_more_than_a_product_is_left_to_the_model():
    model = build_tiny_model(build_tiny_tokenizer()).eval()
    assert plain_head(model) is model.get_output_embeddings().weight
    with_bias = torch.nn.Linear(64, model.config.vocab_size)
    with_bias.weight = model.get_output_embeddings().weight
    model.set_output_embeddings(with_bias)
    chunked._KNOWN.clear()
    assert plain_head(model) is None
