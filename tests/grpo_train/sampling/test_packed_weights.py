import pytest
import torch

import grpo_train.sampling.packed_weights as packed_weights_module
from grpo_train.sampling.generation import Sampling, sample
from grpo_train.sampling.packed_weights import can_be_packed, packed_weights
from tests.grpo_train.conftest import make_problem

IDS = torch.arange(1, 13).view(3, 4)


@torch.inference_mode()
def logits(model):
    return model(input_ids=IDS, use_cache=False).logits


@pytest.fixture(params=[torch.float32, torch.bfloat16])
def model(request, tiny):
    model = tiny[0].to(request.param)
    if not can_be_packed(model.lm_head):
        pytest.skip("oneDNN has no fast kernels of this type on this processor")
    return model


def test_products_are_those_of_the_plain_weights(model):
    plain = logits(model)
    with packed_weights(model):
        packed = logits(model)
    if model.dtype == torch.bfloat16:
        assert torch.equal(packed, plain)
    else:
        torch.testing.assert_close(packed, plain)


def test_a_packed_layer_multiplies_by_the_weight_of_the_start(model):
    layer = model.model.layers[0].mlp.up_proj
    rows = torch.randn(5, layer.in_features, dtype=model.dtype)
    with torch.inference_mode(), packed_weights(model):
        before = layer(rows)
        layer.weight.mul_(2)
        assert torch.equal(layer(rows), before)
    torch.testing.assert_close(layer(rows), 2 * before)


def test_layers_are_as_before_even_after_an_error(model):
    def fail():
        with packed_weights(model):
            assert "forward" in vars(model.lm_head)
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail()
    assert not any("forward" in vars(layer) for layer in model.modules())
    loss = model(input_ids=IDS, labels=IDS).loss
    loss.backward()
    assert model.lm_head.weight.grad is not None


def test_sampling_follows_the_weights_of_its_time(tiny):
    model, tokenizer = tiny
    problems, greedy = [make_problem("1+1")], Sampling(1, 0.0, 8)
    first = sample(model, tokenizer, problems, greedy, seed=0, policy_id="p")
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.5)
    second = sample(model, tokenizer, problems, greedy, seed=0, policy_id="q")
    assert second[0].token_ids != first[0].token_ids


@pytest.mark.parametrize("lacks", ["the library", "the kernels"])
def test_without_the_library_or_its_kernels_weights_stay_as_they_are(tiny, monkeypatch, lacks):
    if lacks == "the library":
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    else:
        monkeypatch.setattr(packed_weights_module, "KERNELS", ("not_there",))
    with packed_weights(tiny[0]):
        assert not any("forward" in vars(layer) for layer in tiny[0].modules())
