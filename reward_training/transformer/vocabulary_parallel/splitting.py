"""Makes embedding and head of a model ones that the ranks compute by parts of the vocabulary, where both are plain.

The weights are then no part of a unit that is gathered. What does more than look up rows, or multiply by a matrix,
stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Shard, distribute_tensor
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from reward_training.transformer.quiet import FAULTS, quiet_transformers
from reward_training.transformer.vocabulary_parallel.embedding import looked_up


def split_by_vocabulary(model: PreTrainedModel, mesh: DeviceMesh, arithmetic: torch.dtype | None) -> set[nn.Parameter]:
    """Split embedding and head of a model that has no weights yet; returns their weights, of which each rank has its rows.

    None are returned, and nothing is changed, if one of them is not plain, or a rank would have no row.

    Args:
        arithmetic: dtype of the states that are looked up; None: that of the weight.
    """
    embedding, head = _ends(model)
    if not (_is_plain_vocabulary(model) and _has_rows(embedding, mesh)):
        return set()
    is_tied = head.weight is embedding.weight
    embedding.weight = _rows(embedding.weight, mesh)
    head.weight = embedding.weight if is_tied else _rows(head.weight, mesh)
    embedding.forward = partial(looked_up, embedding, arithmetic)
    head.forward = partial(_gathered_logits, head)  # for all but `split_token_logprobs`, which takes the weight
    return {embedding.weight, head.weight}


def is_by_vocabulary(config: PreTrainedConfig) -> bool:
    """Whether ranks compute embedding and head of policies of this configuration by parts of the vocabulary."""
    try:
        with torch.device("meta"), quiet_transformers():
            return _is_plain_vocabulary(AutoModelForCausalLM.from_config(config))  # type: ignore[no-untyped-call]
    except FAULTS:  # it needs a package that is not here, or is no causal language model
        return False


def _is_plain_vocabulary(model: PreTrainedModel) -> bool:
    """Whether embedding and head of a model without weights do nothing else, and nothing else does anything to their weights."""
    embedding, head = _ends(model)
    return _is_plain(embedding, head) and _is_alone(model, embedding, head) and _is_only_product(model, head)


def _ends(model: PreTrainedModel) -> tuple[Any, Any]:
    """Embedding and head; None for each that the model lacks, or does not name."""
    try:
        return model.get_input_embeddings(), model.get_output_embeddings()  # type: ignore[no-untyped-call]
    except (NotImplementedError, AttributeError):  # transformers: the model names no embedding
        return None, None


def _is_plain(embedding: Any, head: Any) -> bool:
    """Whether one only looks up rows, and the other only multiplies by a matrix of as many."""
    if type(embedding) is not nn.Embedding or type(head) is not nn.Linear or getattr(head, "bias", None) is not None:
        return False
    is_changed = embedding.max_norm is not None or embedding.scale_grad_by_freq or embedding.sparse
    return not is_changed and len(head.weight) == len(embedding.weight)


def _has_rows(embedding: nn.Embedding, mesh: DeviceMesh) -> bool:
    """Whether each rank gets a row."""
    num_rows, num_ranks = len(embedding.weight), mesh.size()
    return -(-num_rows // num_ranks) * (num_ranks - 1) < num_rows


def _is_alone(model: PreTrainedModel, embedding: nn.Embedding, head: nn.Linear) -> bool:
    """Whether no other module has one of the weights."""
    rest = [module for module in model.modules() if module is not embedding and module is not head]
    weights = [weight for module in rest for weight in module.parameters(recurse=False)]
    return all(weight is not embedding.weight and weight is not head.weight for weight in weights)


def _rows(weight: nn.Parameter, mesh: DeviceMesh) -> nn.Parameter:
    """The weight, of which this rank has its rows."""
    split = distribute_tensor(weight.detach(), mesh, [Shard(0)], src_data_rank=None)
    return nn.Parameter(split, requires_grad=weight.requires_grad)


def _gathered_logits(head: nn.Linear, hidden: Tensor) -> Tensor:
    """(..., V) logits of (..., H) by the whole weight, which is gathered for it. All ranks call it."""
    weight = head.weight
    assert isinstance(weight, DTensor), "the head is split"
    return F.linear(hidden, weight.full_tensor(grad_placements=[Partial()]).to(hidden.dtype))


# ---- whether the logits are a product ---------------------------------------------------------------------------------


class _States(BaseModelOutput):
    """What a decoder returned; None for all that it may return besides its states."""

    def __getattr__(self, name: str) -> None:
        return None


@torch.no_grad()
def _is_only_product(model: PreTrainedModel, head: nn.Linear) -> bool:
    """Whether the model, whose weights are on the meta device, returns what the head makes of the decoder's states as it is."""
    states = torch.empty(1, 4, head.in_features, device=head.weight.device, dtype=head.weight.dtype)
    ids = torch.zeros(1, 4, dtype=torch.long, device=states.device)
    decoder = model.get_decoder()  # type: ignore[no-untyped-call]
    calls: list[tuple[Tensor, Tensor]] = []
    hook = head.register_forward_hook(lambda _, given, made: calls.append((given[0], made)))
    try:
        with _returning(decoder, _States(last_hidden_state=states)), quiet_transformers():
            logits = model(input_ids=ids, use_cache=False).logits
    except FAULTS:
        return False
    finally:
        hook.remove()
    return len(calls) == 1 and calls[0][1] is logits and (calls[0][0] is states or calls[0][0]._base is states)


@contextmanager
def _returning(module: nn.Module, result: Any) -> Iterator[None]:
    """Inside this context the module returns the result, whatever it is called with."""
    before = module.__dict__.get("forward")
    module.__dict__["forward"] = lambda *_, **__: result
    try:
        yield
    finally:
        del module.__dict__["forward"]
        if before is not None:
            module.__dict__["forward"] = before
