"""Log-probabilities of responses, each prompt computed once for all of its responses and all micro-batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import Cache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from configs.errors import ConfigError
from configs.records import Completion
from grpo_train.batches import MicroBatch, PromptBlock, padded_logprobs, prompt_blocks
from grpo_train.loss import k3, response_means
from grpo_train.token_logprobs import plain_head, token_logprobs
from reward_training.attention import fit_attention


class PromptPass:
    """A block's prompts, computed once for all of its micro-batches.

    Micro-batches are differentiated one after the other with respect to the prompts' keys, values and last states, where the
    gradients add up; `backward` then takes them through the prompts.
    """

    def __init__(self, model: PreTrainedModel, block: PromptBlock, temperature: float) -> None:
        self.block, self.temperature = block, temperature
        widest = max(batch.response_ids.shape[1] for batch in block.micro_batches)
        fit_attention(model, block.prompt_ids.shape[1] + widest)
        self.head = plain_head(model)
        self.body: Any = model if self.head is None else model.get_decoder()  # type: ignore[no-untyped-call]
        cache = Cache(layer_class_to_replicate=_After)
        positions = (block.prompt_mask.cumsum(dim=1) - 1).clamp(min=0)
        states = self._forward(block.prompt_ids, block.prompt_mask, positions, cache)[:, -1:]
        layers: list[Any] = cache.layers
        self.computed: list[Tensor] = [states, *(each for layer in layers for each in layer.written)]
        self.leaves = [each.detach().requires_grad_(each.requires_grad) for each in self.computed]

    def _forward(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Cache) -> Tensor:
        """A decoder's last hidden states, or the model's logits where it does more than multiply them."""
        output = self.body(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )
        found: Tensor = output.logits if self.head is None else output.last_hidden_state
        return found

    def logprobs(self, batch: MicroBatch) -> Tensor:
        """(B, T) float32 log-probabilities of the response tokens under logits / temperature, 0 on padding."""
        states = self._states(batch)
        if self.head is None:
            logits = (states.float() / self.temperature).flatten(0, 1)
            values = -F.cross_entropy(logits, batch.response_ids.flatten(), reduction="none")
            return values.view_as(batch.mask) * batch.mask
        real = batch.mask.bool()
        values = token_logprobs(states[real], self.head, batch.response_ids[real], self.temperature)
        return torch.zeros_like(batch.mask).masked_scatter(real, values)

    def _states(self, batch: MicroBatch) -> Tensor:
        """(B, T, .) what each response token is predicted from."""
        after_prompt = self.leaves[0][batch.prompt_of]
        ids = batch.response_ids[:, :-1]
        if ids.shape[1] == 0:
            return after_prompt
        prompts = zip(self.leaves[1::2], self.leaves[2::2], strict=True)
        cache = Cache(layers=[_After(keys[batch.prompt_of], values[batch.prompt_of]) for keys, values in prompts])
        prompt_mask = self.block.prompt_mask[batch.prompt_of]
        mask = torch.cat([prompt_mask, batch.mask[:, :-1].long()], dim=1)
        positions = prompt_mask.sum(dim=1, keepdim=True) + torch.arange(ids.shape[1], device=ids.device)
        return torch.cat([after_prompt, self._forward(ids, mask, positions, cache)], dim=1)

    def backward(self) -> None:
        """Take what the micro-batches' backward passes left on the prompts through the model."""
        reached = [(each, leaf.grad) for each, leaf in zip(self.computed, self.leaves, strict=True)]
        reached = [(each, gradient) for each, gradient in reached if gradient is not None]
        if reached:
            tensors, gradients = zip(*reached, strict=True)
            torch.autograd.backward(tensors, gradients)


class _After(DynamicLayer):  # type: ignore[no-untyped-call]
    """A cache's layer that gives what comes after given keys and values, and keeps it apart: asked twice, it gives the same."""

    def __init__(self, keys: Tensor | None = None, values: Tensor | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.keys, self.values = keys, values
        self.is_initialized = keys is not None
        self.written: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """(B, K, T, D) keys and values -> the given ones and these."""
        self.written = key_states, value_states
        if self.keys is None or self.values is None:
            return self.written
        return torch.cat([self.keys, key_states], dim=2), torch.cat([self.values, value_states], dim=2)


def recompute_layers(model: PreTrainedModel) -> None:
    """Keep a layer's input alone for its backward pass and compute the rest again there (arXiv 1604.06174, section 4.1).

    transformers' own switch for this turns the key-value cache off, by which a prompt is computed once for its group.

    Raises:
        ConfigError: the model does not say which its layers are.
    """
    layers = getattr(model.get_decoder(), "layers", None)  # type: ignore[no-untyped-call]
    if layers is None:
        raise ConfigError(
            f"grpo_config.activation_checkpointing does not know the layers of {type(model).__name__}; set it to false"
        )
    for layer in layers:
        layer.forward = partial(_recomputed, layer.forward)


def _recomputed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)


@torch.no_grad()
def known_logprobs(
    model: PreTrainedModel, completions: Sequence[Completion], *, max_tokens: int, temperature: float
) -> Iterator[tuple[MicroBatch, Tensor]]:
    """Log-probabilities of all responses under `model`, without a gradient, micro-batch by micro-batch."""
    for block in prompt_blocks(completions, range(len(completions)), max_tokens, model.device):
        prompts = PromptPass(model, block, temperature)
        for batch in block.micro_batches:
            yield batch, prompts.logprobs(batch)


def policy_kl(
    reference: PreTrainedModel, completions: Sequence[Completion], *, max_tokens: int, temperature: float
) -> list[float]:
    """For each response, the token mean of the k3 estimate of KL(policy that sampled || reference), in nats a token."""
    values = [0.0] * len(completions)
    for batch, logprobs in known_logprobs(reference, completions, max_tokens=max_tokens, temperature=temperature):
        means = response_means(k3(padded_logprobs(completions, batch), logprobs, batch.mask), batch.mask)
        for row, value in zip(batch.rows, means.tolist(), strict=True):
            values[row] = value
    return values
