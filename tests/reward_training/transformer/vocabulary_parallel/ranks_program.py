"""One of the ranks that look up embeddings and compute log-probabilities by parts of the vocabulary; `test_ranks` starts it.

python -m tests.reward_training.transformer.vocabulary_parallel.ranks_program FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from reward_training.transformer.vocabulary_parallel import rounds
from reward_training.transformer.vocabulary_parallel.embedding import looked_up
from reward_training.transformer.vocabulary_parallel.head import split_token_logprobs
from reward_training.transformer.vocabulary_parallel.splitting import _rows
from tasks.job import _meet_ranks

VOCABULARY, WIDTH, PADDING, TEMPERATURE = 23, 8, 3, 0.7
"""23 tokens: the parts of two ranks are 12 and 11, those of three 8, 8 and 7"""
NUM_ROWS = (11, 0, 5)
"""of each rank"""
ROUND = 4
"""rows that a rank gives to a round: the first has three rounds"""


class Given(NamedTuple):
    """What one rank computes with; the weight is the same for all."""

    hidden: Tensor
    targets: Tensor
    of_logprobs: Tensor
    """gradient that comes from above"""
    ids: Tensor
    of_states: Tensor
    """gradient that comes from above"""


def weight() -> Tensor:
    return torch.randn(VOCABULARY, WIDTH, generator=torch.Generator().manual_seed(9))


def given(rank: int) -> Given:
    draw, n = torch.Generator().manual_seed(rank), NUM_ROWS[rank]
    return Given(
        torch.randn(n, WIDTH, generator=draw),
        torch.randint(VOCABULARY, (n,), generator=draw),
        torch.randn(n, generator=draw),
        torch.randint(VOCABULARY, (n, 2), generator=draw),
        torch.randn(n, 2, WIDTH, generator=draw),
    )


def main(folder: Path) -> None:
    _meet_ranks(folder / "ranks.store")
    rank, num_ranks = distributed.get_rank(), distributed.get_world_size()
    rounds.ROWS = ROUND * num_ranks
    table = nn.Embedding(VOCABULARY, WIDTH, padding_idx=PADDING)
    table.weight = _rows(nn.Parameter(weight()), init_device_mesh("cpu", (num_ranks,)))
    assert isinstance(table.weight, DTensor)
    mine = given(rank)
    hidden = mine.hidden.requires_grad_()
    logprobs = split_token_logprobs(hidden, table.weight, mine.targets, TEMPERATURE)
    states = looked_up(table, None, mine.ids)
    ((logprobs * mine.of_logprobs).sum() + (states * mine.of_states).sum()).backward()
    assert hidden.grad is not None
    assert isinstance(table.weight.grad, DTensor)
    found = {"logprobs": logprobs, "states": states, "hidden_grad": hidden.grad, "part": table.weight.grad.to_local()}
    save_file({name: value.detach().contiguous() for name, value in found.items()}, folder / f"rank_{rank}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
