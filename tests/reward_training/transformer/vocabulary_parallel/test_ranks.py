"""Ranks that each have a part of the vocabulary, against one process that has all of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from reward_training.transformer.token_logprobs import token_logprobs
from tests.grpo_train.updating.ranks_kit import finish, start_ranks
from tests.reward_training.transformer.vocabulary_parallel import ranks_program as program

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_values_and_gradients_of_both_uses_equal_those_of_one_process(num_ranks: int, tmp_path: Path) -> None:
    """The ranks have 11, 0 and 5 rows, and parts of unequal size; the weight is embedding and head."""
    finish(start_ranks(program.__name__, tmp_path, num_ranks), 300)
    found = [load_file(tmp_path / f"rank_{rank}.safetensors") for rank in range(num_ranks)]

    inputs = [program.given(rank) for rank in range(num_ranks)]
    hidden, targets, of_logprobs, ids, of_states = map(torch.cat, zip(*inputs, strict=True))
    hidden.requires_grad_()
    table = nn.Embedding.from_pretrained(program.weight(), freeze=False, padding_idx=program.PADDING)
    logprobs, states = token_logprobs(hidden, table.weight, targets, program.TEMPERATURE), table(ids)
    ((logprobs * of_logprobs).sum() + (states * of_states).sum()).backward()

    assert torch.equal(torch.cat([each["states"] for each in found]), states)
    for name, expected in (("logprobs", logprobs), ("hidden_grad", hidden.grad), ("part", table.weight.grad)):
        assert torch.allclose(torch.cat([each[name] for each in found]), expected, rtol=0, atol=1e-5), name
