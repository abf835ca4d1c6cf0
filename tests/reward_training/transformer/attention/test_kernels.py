"""Grouped attention equals the model's eager attention, and is used only for models where it does."""

import json
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import nn
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel
from transformers.models.llama.modeling_llama import eager_attention_forward

from reward_training.transformer.attention.kernels import GROUPED, PLAIN_UNTIL, fit_attention, grouped_attention

SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


@pytest.fixture
def llama():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES)).eval()


@pytest.mark.parametrize("query_length", [1, 5])
@pytest.mark.parametrize("value_width", [8, 5, 11])  # with latent attention (MLA) values are not as wide as keys
def test_grouped_attention_equals_the_repeated_one_in_value_and_gradient(query_length, value_width):
    torch.manual_seed(0)
    module = nn.Module().eval()
    module.num_key_value_groups = 3
    shapes = [(2, 6, query_length, 8), (2, 2, 7, 8), (2, 2, 7, value_width)]
    hidden = torch.rand(2, 1, query_length, 7) < 0.3
    hidden[..., 0] = False
    mask = torch.zeros(hidden.shape, dtype=torch.float64).masked_fill(hidden, torch.finfo(torch.float64).min)
    weights = torch.randn(2, query_length, 6, value_width, dtype=torch.float64)
    found = []
    for attention in (eager_attention_forward, grouped_attention):
        torch.manual_seed(1)
        inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
        attended, _ = attention(module, *inputs, mask, scaling=0.35)
        (attended * weights).sum().backward()
        found.append([attended.detach(), *(each.grad for each in inputs)])
    for own, grouped in zip(*found, strict=True):
        torch.testing.assert_close(grouped, own, rtol=0, atol=1e-6)  # their softmax is float32


def test_a_model_takes_it_for_short_rows_on_a_cpu_and_writes_the_same(llama):
    ids = torch.randint(0, 50, (3, 9))
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    before = llama(input_ids=ids, attention_mask=mask).logits
    fit_attention(llama, PLAIN_UNTIL)
    assert llama.config._attn_implementation == GROUPED
    after = llama(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(after[mask.bool()], before[mask.bool()], rtol=0, atol=1e-5)
    fit_attention(llama, PLAIN_UNTIL + 1)
    assert llama.config._attn_implementation == "sdpa"


def test_a_model_whose_attention_does_more_keeps_its_own():
    model = Gemma2ForCausalLM(Gemma2Config(**SIZES, attn_logit_softcapping=1.0)).eval()
    fit_attention(model, 8)
    assert model.config._attn_implementation == "eager"


def test_the_kernel_is_not_saved_with_the_model(llama, tmp_path):
    fit_attention(llama, 8)
    llama.save_pretrained(tmp_path)
    assert GROUPED not in json.dumps(json.loads((tmp_path / "config.json").read_text()))
    assert LlamaForCausalLM.from_pretrained(tmp_path).config._attn_implementation == "sdpa"


def test_a_gpu_does_without_the_kernel_that_makes_a_plan_for_every_shape() -> None:
    before = torch.backends.cuda.cudnn_sdp_enabled()
    try:
        torch.backends.cuda.enable_cudnn_sdp(True)
        fit_attention(cast("PreTrainedModel", SimpleNamespace(device=torch.device("cuda"))), 64)
        assert not torch.backends.cuda.cudnn_sdp_enabled()
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)
