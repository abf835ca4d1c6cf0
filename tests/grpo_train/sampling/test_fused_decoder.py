"""The fused decoder computes what transformers' does, for each decoder it knows, and leaves all others alone."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

import grpo_train.sampling.fused_decoder as fused_decoder_module
from configs.schema.grpo import LoraConfig
from grpo_train.policies.adapter import Adapter
from grpo_train.sampling.fused_decoder import fused_decoder
from grpo_train.sampling.generation import Sampling, sample
from grpo_train.sampling.key_value_cache import sampling_cache
from grpo_train.sampling.packed_weights import can_be_packed
from reward_training.transformer.attention.kernels import PLAIN_UNTIL, fit_attention
from tests.grpo_train.conftest import make_problem

SIZES = {
    "vocab_size": 64,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
DECODERS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "llama with biases": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True)),
    "llama 3": lambda: LlamaForCausalLM(
        LlamaConfig(
            **SIZES,
            rope_parameters={
                "rope_type": "llama3",
                "rope_theta": 1e4,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        )
    ),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=16)),
}


def with_random_scales(model, dtype):
    """Norms and biases that matter: as they are made they are ones and zeros."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 1:
                weight.add_(torch.randn_like(weight), alpha=0.3)
    return model.to(dtype).eval()


@torch.inference_mode()
def written(model, prompt_length: int) -> list[torch.Tensor]:
    """Logits of a prompt's last token and of four tokens after it, of three rows, one of which is padded on the left."""
    torch.manual_seed(1)
    ids = torch.randint(0, 64, (3, prompt_length + 4))
    mask = torch.ones_like(ids)
    mask[1, :2] = 0
    position_ids = (mask.cumsum(dim=1) - 1).clamp(min=0)
    cache = sampling_cache(model)
    fit_attention(model, prompt_length + 4)
    found, start = [], 0
    for end in (prompt_length, *range(prompt_length + 1, prompt_length + 5)):
        output = model(
            input_ids=ids[:, start:end],
            attention_mask=mask[:, :end],
            position_ids=position_ids[:, start:end],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        found.append(output.logits)
        start = end
    return found


@pytest.mark.parametrize("prompt_length", [7, PLAIN_UNTIL])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", DECODERS)
def test_logits_are_those_of_the_plain_decoder(name, dtype, prompt_length):
    torch.manual_seed(0)
    model = with_random_scales(DECODERS[name](), dtype)
    if not can_be_packed(model.lm_head):
        pytest.skip("oneDNN has no fast kernels of this type on this processor")
    plain = written(model, prompt_length)
    with fused_decoder(model) as is_fused:
        assert is_fused
        fused = written(model, prompt_length)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(fused, plain, rtol=tolerance, atol=tolerance)
    assert "forward" not in vars(model.model)


def test_what_is_sampled_is_the_same_token_by_token(tiny, monkeypatch):
    model, tokenizer = tiny
    problems = [make_problem(question) for question in ("1+1", "2+3+4")]

    def sampled():
        return sample(model, tokenizer, problems, Sampling(8, 1.0, 24), seed=0, policy_id="p")

    with fused_decoder(model) as is_fused:
        assert is_fused
    found = sampled()
    monkeypatch.setattr(fused_decoder_module, "KNOWN", ())
    for completion, plain in zip(found, sampled(), strict=True):
        assert completion.token_ids == plain.token_ids
        assert completion.logprobs == pytest.approx(plain.logprobs, abs=1e-5)


def with_adapter():
    model = LlamaForCausalLM(LlamaConfig(**SIZES))
    Adapter(model, LoraConfig(rank=2), seed=0)
    return model


def with_forward_of_its_own():
    model = LlamaForCausalLM(LlamaConfig(**SIZES))
    model.model.forward = model.model.forward
    return model


@pytest.mark.parametrize(
    "build",
    [
        with_adapter,
        with_forward_of_its_own,
        lambda: LlamaForCausalLM(LlamaConfig(**SIZES, hidden_act="gelu")),
        lambda: GemmaForCausalLM(GemmaConfig(**SIZES)),
        lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=8, max_window_layers=1)),
    ],
    ids=["an adapter", "a forward of its own", "another activation", "another decoder", "a window"],
)
def test_other_decoders_stay_as_they_are(build):
    model = build()
    before = dict(vars(model.model))
    with fused_decoder(model) as is_fused:
        assert not is_fused
        assert vars(model.model) == before


def test_a_call_without_a_cache_is_computed_as_before_and_so_are_all_after_an_error():
    model = LlamaForCausalLM(LlamaConfig(**SIZES)).eval()
    ids = torch.arange(12).view(3, 4)
    plain = model(input_ids=ids, use_cache=False).logits

    def fail():
        with fused_decoder(model):
            assert torch.equal(model(input_ids=ids, use_cache=False).logits, plain)
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail()
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    assert model.model.layers[0].mlp.up_proj.weight.grad is not None


def test_a_fused_decoder_multiplies_by_the_weights_of_the_start():
    model = LlamaForCausalLM(LlamaConfig(**SIZES)).eval()
    with fused_decoder(model):
        before = written(model, 5)
        with torch.no_grad():
            model.model.layers[0].mlp.up_proj.weight.mul_(2)
        torch.testing.assert_close(written(model, 5), before)
    assert not torch.allclose(written(model, 5)[0], before[0])
