"""The forward pass of Llama's, Qwen2's and Qwen3's decoders in fewer operators, for sampling on a CPU.

A decoding step has a thousand small operators, which take as long as reading the weights. Here query, key and value are one
product, gate and up another (fused projections, as in vLLM's models), queries and keys are turned by their positions together,
and no module is called in between. The arithmetic is transformers', in its order, so the states are equal; where a product has
one row, up to how its kernel adds up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Cache, LlamaForCausalLM, PreTrainedModel, Qwen2ForCausalLM, Qwen3ForCausalLM
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import eager_attention_forward

from grpo_train.sampling.packed_weights import can_be_packed, packed_product

KNOWN = (LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM)


@contextmanager
def fused_decoder(model: PreTrainedModel) -> Iterator[bool]:
    """Inside this context the decoder of a model that `can_be_fused` multiplies by fused, packed copies of its weights, which are
    made on entry. Yields whether it does."""
    decoder: Any = model.get_decoder()  # type: ignore[no-untyped-call]
    if not can_be_fused(model):
        yield False
        return
    try:
        decoder.forward = FusedDecoder(decoder)
        yield True
    finally:
        vars(decoder).pop("forward", None)


def can_be_fused(model: PreTrainedModel) -> bool:
    """Whether the model has a known decoder without adapters, gated by SiLU, whose layers attend to all earlier tokens."""
    decoder = model.get_decoder()  # type: ignore[no-untyped-call]
    if type(model) not in KNOWN or model.config.hidden_act != "silu" or "forward" in vars(decoder):
        return False
    if any(kind != "full_attention" for kind in getattr(model.config, "layer_types", None) or ()):
        return False
    products = [
        product for layer in decoder.layers for product in (*_projections(layer.self_attn), *_projections(layer.mlp))
    ]
    return all(type(product) is nn.Linear and can_be_packed(product) for product in products)


def _projections(module: nn.Module) -> list[nn.Module]:
    return [child for name, child in module.named_children() if name.endswith("_proj")]


class FusedDecoder:
    """Computes what `decoder(...)` does: sampling's calls as said above, all others as before."""

    def __init__(self, decoder: Any) -> None:
        self.decoder, self.plain = decoder, decoder.forward
        self.layers = [_FusedLayer(layer) for layer in decoder.layers[: decoder.config.num_hidden_layers]]
        self.norm = _norm(decoder.norm)

    def __call__(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        **settings: Any,
    ) -> BaseModelOutputWithPast:
        """States of (B, T) tokens that follow those in the cache, which gets their keys and values."""
        if input_ids is None or position_ids is None or past_key_values is None:
            plain: BaseModelOutputWithPast = self.plain(
                input_ids, attention_mask, position_ids, past_key_values, **settings
            )
            return plain
        config = self.decoder.config
        states = self.decoder.embed_tokens(input_ids)
        mask = create_causal_mask(
            config=config,
            inputs_embeds=states,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            position_ids=position_ids,
        )
        attention = ALL_ATTENTION_FUNCTIONS.get_interface(config._attn_implementation, eager_attention_forward)
        rotation = _rotation(*self.decoder.rotary_emb(states, position_ids))
        for layer in self.layers:
            states = layer(states, rotation, past_key_values, attention, mask, settings)
        return BaseModelOutputWithPast(last_hidden_state=self.norm(states), past_key_values=past_key_values)


class _FusedLayer:
    def __init__(self, layer: Any) -> None:
        self.attention, mlp = layer.self_attn, layer.mlp
        of_query, of_key, of_value = self.attention.q_proj, self.attention.k_proj, self.attention.v_proj
        self.head_dim: int = self.attention.head_dim
        self.num_heads = of_query.out_features // self.head_dim
        self.num_key_heads = of_key.out_features // self.head_dim
        self.before_attention, self.before_mlp = _norm(layer.input_layernorm), _norm(layer.post_attention_layernorm)
        self.of_heads = self._head_norm() if hasattr(self.attention, "q_norm") else None
        self.query_key_value = _fused(of_query, of_key, of_value)
        self.output = _fused(self.attention.o_proj)
        self.gate_up, self.down = _fused(mlp.gate_proj, mlp.up_proj), _fused(mlp.down_proj)

    def _head_norm(self) -> Callable[[Tensor], Tensor]:
        """Qwen3's norms of query and key heads, as one."""
        of_query, of_key = self.attention.q_norm, self.attention.k_norm
        scales = [of_query.weight.expand(self.num_heads, -1), of_key.weight.expand(self.num_key_heads, -1)]
        return _scaled_to_one(torch.cat(scales), of_query.variance_epsilon)

    def __call__(
        self,
        states: Tensor,
        rotation: tuple[Tensor, Tensor],
        cache: Cache,
        attention: Callable[..., tuple[Tensor, Any]],
        mask: Any,
        settings: dict[str, Any],
    ) -> Tensor:
        """(B, T, H) states after this layer, of those before it."""
        heads = self.query_key_value(self.before_attention(states)).view(*states.shape[:2], -1, self.head_dim)
        turned, value = torch.split(heads, [self.num_heads + self.num_key_heads, self.num_key_heads], dim=2)
        turned = _turned(turned if self.of_heads is None else self.of_heads(turned), *rotation)
        query, key = torch.split(turned.transpose(1, 2), [self.num_heads, self.num_key_heads], dim=1)
        keys, values = cache.update(key, value.transpose(1, 2), self.attention.layer_idx)
        attended, _ = attention(
            self.attention, query, keys, values, mask, dropout=0.0, scaling=self.attention.scaling, **settings
        )
        states = states + self.output(attended.flatten(2))
        gate, up = self.gate_up(self.before_mlp(states)).chunk(2, dim=-1)
        return states + self.down(F.silu(gate) * up)


def _rotation(cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor]:
    """(B, T, 1, D) cosines and sines, the sines of the first half negated: x cos + (-second, first) sin is then
    x cos + (second, first) sine (RoFormer, arXiv 2104.09864, equation 34)."""
    first, second = sine.chunk(2, dim=-1)
    return cosine.unsqueeze(2), torch.cat([-first, second], dim=-1).unsqueeze(2)


def _turned(heads: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    first, second = heads.chunk(2, dim=-1)
    return heads * cosine + torch.cat([second, first], dim=-1) * sine


def _norm(module: Any) -> Callable[[Tensor], Tensor]:
    return _scaled_to_one(module.weight, module.variance_epsilon)


def _scaled_to_one(scale: Tensor, epsilon: float) -> Callable[[Tensor], Tensor]:
    """RMSNorm (arXiv 1910.07467), whose mean and division are in float32."""

    def normed(states: Tensor) -> Tensor:
        wide = states.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
        return scale * wide.to(states.dtype)

    return normed


def _fused(*layers: nn.Linear) -> Callable[[Tensor], Tensor]:
    """The outputs of the layers side by side, by one product."""
    weight = torch.cat([layer.weight.detach() for layer in layers])
    biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
    return packed_product(weight, torch.cat(biases) if biases else None)
