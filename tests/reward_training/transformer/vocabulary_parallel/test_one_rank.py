"""Embedding, head and what is split, with one rank; `test_ranks` has several."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from torch import distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from reward_training.transformer.vocabulary_parallel import rounds
from reward_training.transformer.vocabulary_parallel.embedding import looked_up
from reward_training.transformer.vocabulary_parallel.head import split_token_logprobs
from reward_training.transformer.vocabulary_parallel.splitting import _has_rows, _rows, split_by_vocabulary


@pytest.fixture
def mesh() -> Iterator[DeviceMesh]:
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


@pytest.mark.parametrize("num_rows", [1, 5, 8, 13])
def test_logprobs_and_gradients_equal_those_of_a_log_softmax(
    num_rows: int, mesh: DeviceMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "ROWS", 5)
    draw = torch.Generator().manual_seed(num_rows)
    hidden, weight = (torch.randn(n, 6, dtype=torch.float64, generator=draw).requires_grad_() for n in (num_rows, 11))
    targets = torch.randint(11, (num_rows,), generator=draw)
    upstream = torch.randn(num_rows, generator=draw)
    expected = ((hidden @ weight.T) / 0.7).log_softmax(dim=1).gather(1, targets[:, None]).squeeze(1)
    expected.backward(upstream.double())

    ours, split = hidden.detach().float().requires_grad_(), _rows(nn.Parameter(weight.detach().float()), mesh)
    logprobs = split_token_logprobs(ours, split, targets, 0.7)
    for retain in (True, False):  # the second pass computes the last logits again
        ours.grad = split.grad = None
        logprobs.backward(upstream, retain_graph=retain)
        assert torch.allclose(logprobs.double(), expected, atol=1e-5)
        assert torch.allclose(ours.grad.double(), hidden.grad, atol=1e-5)
        assert torch.allclose(split.grad.to_local().double(), weight.grad, atol=1e-5)


def test_logits_beyond_the_range_of_exp_give_finite_logprobs(mesh: DeviceMesh) -> None:
    """Logits 0 and 200: log p = -200 - log(1 + e^-200) = -200; exp(200) has no float32."""
    split = _rows(nn.Parameter(torch.tensor([[0.0], [200.0]])), mesh)
    logprobs = split_token_logprobs(torch.ones(2, 1), split, torch.tensor([0, 1]), 1.0)
    assert logprobs.tolist() == [-200.0, 0.0]


def test_states_and_gradients_equal_those_of_an_embedding_that_gives_its_padding_none(
    mesh: DeviceMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "ROWS", 4)
    torch.manual_seed(0)
    whole, ids = nn.Embedding(7, 5, padding_idx=2), torch.tensor([[0, 2, 6], [6, 6, 1]])
    upstream = torch.randn(2, 3, 5)
    split = nn.Embedding(7, 5, padding_idx=2)
    split.weight = _rows(nn.Parameter(whole.weight.detach().clone()), mesh)
    states = looked_up(split, None, ids)
    for found in (states, whole(ids)):
        found.backward(upstream)
    assert torch.equal(states, whole(ids))
    assert torch.equal(split.weight.grad.to_local(), whole.weight.grad)
    assert whole.weight.grad[6].abs().sum() > 0
    assert looked_up(split, torch.bfloat16, ids).equal(whole(ids).bfloat16())


def without_weights(kind: str, **changes: object) -> PreTrainedModel:
    sizes = {"num_hidden_layers": 1, "vocab_size": 40, "pad_token_id": None, **changes}
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**sizes))
    return model


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3_moe", "gpt2", "olmo2"])
def test_plain_embeddings_and_heads_are_split(kind: str, mesh: DeviceMesh) -> None:
    model = without_weights(kind)
    weights = split_by_vocabulary(model, mesh, None)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    assert weights == {embedding.weight, head.weight}
    assert all(isinstance(weight, DTensor) for weight in weights)


def test_a_weight_that_is_both_is_split_once(mesh: DeviceMesh) -> None:
    model = without_weights("llama")
    model.lm_head.weight = model.model.embed_tokens.weight
    (weight,) = split_by_vocabulary(model, mesh, None)
    assert weight is model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize("kind", ["gemma2", "gemma3_text", "cohere", "granite", "falcon_h1", "phi"])
def test_what_does_more_than_look_up_and_multiply_stays_as_it_is(kind: str, mesh: DeviceMesh) -> None:
    """Soft caps, scaled embeddings, scaled logits and biases would be left out."""
    model = without_weights(kind)
    before = dict(model.named_parameters())
    assert split_by_vocabulary(model, mesh, None) == set()
    assert all(weight is before[name] for name, weight in model.named_parameters())
    assert not any("forward" in module.__dict__ for module in model.modules())


def test_a_weight_that_a_third_module_has_too_stays_as_it_is(mesh: DeviceMesh) -> None:
    model = without_weights("llama")
    model.third = nn.Linear(1, 1, bias=False)
    model.third.weight = model.lm_head.weight
    assert split_by_vocabulary(model, mesh, None) == set()


@pytest.mark.parametrize(("num_ranks", "has"), [(1, True), (2, True), (3, True), (4, False), (5, True), (6, False)])
def test_every_rank_needs_a_row(num_ranks: int, has: bool) -> None:
    """Of 5 rows four ranks would get 2, 2, 1 and 0, and five ranks 1 each."""
    embedding = nn.Embedding(5, 1)
    assert _has_rows(embedding, SimpleNamespace(size=lambda: num_ranks)) is has  # type: ignore[arg-type]
