"""Several conversations of one prompt in one row: the prompt is computed once, each response attends to it and to itself.

A pair of a 60-token prompt and two 40-token responses is 140 tokens instead of 200, and the 5 completions of 4 pairs are
260 instead of 800. Scores equal those of separate rows up to rounding. Only models that attend fully in every layer can
take the mask (`shares_prompts`); the others get a row a conversation.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.modeling_layers import GenericForSequenceClassification

Sequences = Sequence[Sequence[int]]

MAX_TREE_TOKENS = 512
"""or twice the longest conversation: the mask, and attention's work, grow with the square of a row's length"""


@dataclass(frozen=True)
class Packed:
    """A batch of B rows of T tokens that holds N conversations."""

    input_ids: torch.Tensor
    """(B, T) int64, `pad_token_id` after the last token"""
    attention_mask: torch.Tensor
    """(B, T) int64, 0 on padding; or (B, 1, T, T) bool, True where the second position is seen from the first"""
    position_ids: torch.Tensor
    """(B, T) int64, each token's position in its own conversation"""
    rows: torch.Tensor
    """(N,) int64, the row of each conversation"""
    columns: torch.Tensor
    """(N,) int64, the position of its last token"""


@dataclass(frozen=True)
class _Tree:
    """Conversations with a common beginning: `members` are their numbers, `branches` what follows the trunk."""

    trunk: list[int]
    branches: list[list[int]]
    members: list[list[int]]

    @property
    def num_tokens(self) -> int:
        return len(self.trunk) + sum(len(branch) for branch in self.branches)


def shares_prompts(model: PreTrainedModel) -> bool:
    """Whether the model takes a mask of (B, 1, T, T): a decoder with full attention in every layer and pooling by `score`."""
    config = model.config
    layers = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    return isinstance(model, GenericForSequenceClassification) and layers == {"full_attention"} and window is None


def pack(sequences: Sequences, groups: Sequence[Hashable], *, pad_token_id: int, share: bool) -> Packed:
    """Token sequences as one batch; those of the same group share their common beginning where `share`."""
    if share:
        return _pack_trees(_trees(sequences, groups), len(sequences), pad_token_id)
    width = max(len(ids) for ids in sequences)
    lengths = torch.tensor([len(ids) for ids in sequences])
    input_ids = torch.tensor([[*ids, *[pad_token_id] * (width - len(ids))] for ids in sequences])
    mask = (torch.arange(width) < lengths[:, None]).long()
    position_ids = torch.arange(width).expand(len(sequences), width)
    return Packed(input_ids, mask, position_ids, torch.arange(len(sequences)), lengths - 1)


def _trees(sequences: Sequences, groups: Sequence[Hashable]) -> list[_Tree]:
    numbers: dict[Hashable, dict[tuple[int, ...], list[int]]] = {}
    for number, (ids, group) in enumerate(zip(sequences, groups, strict=True)):
        numbers.setdefault(group, {}).setdefault(tuple(ids), []).append(number)
    return [_tree(part) for distinct in numbers.values() for part in _parts(distinct)]


def _parts(distinct: dict[tuple[int, ...], list[int]]) -> Iterator[dict[tuple[int, ...], list[int]]]:
    """The conversations of a group, as many at a time as make a tree of bounded length."""
    common = _common_length(list(distinct))
    most = max(MAX_TREE_TOKENS, 2 * max(len(ids) for ids in distinct))
    part: dict[tuple[int, ...], list[int]] = {}
    num_tokens = common
    for ids, members in distinct.items():
        if part and num_tokens + len(ids) - common > most:
            yield part
            part, num_tokens = {}, common
        part[ids] = members
        num_tokens += len(ids) - common
    yield part


def _tree(distinct: dict[tuple[int, ...], list[int]]) -> _Tree:
    common = _common_length(list(distinct))
    trunk = list(next(iter(distinct))[:common])
    return _Tree(trunk, [list(ids[common:]) for ids in distinct], list(distinct.values()))


def _common_length(sequences: list[tuple[int, ...]]) -> int:
    """Tokens that all begin with, leaving each at least one of its own."""
    lowest, highest = min(sequences), max(sequences)
    limit = min(len(ids) for ids in sequences) - 1
    for position in range(limit):
        if lowest[position] != highest[position]:
            return position
    return limit


def _pack_trees(trees: list[_Tree], num_sequences: int, pad_token_id: int) -> Packed:
    bins = _fill_rows(trees)
    width = max(sum(tree.num_tokens for tree in row) for row in bins)
    input_ids = torch.full((len(bins), width), pad_token_id)
    position_ids = torch.zeros((len(bins), width), dtype=torch.long)
    tree_ids = torch.full((len(bins), width), -1)
    branch_ids = torch.zeros((len(bins), width), dtype=torch.long)
    rows = torch.zeros(num_sequences, dtype=torch.long)
    columns = torch.zeros(num_sequences, dtype=torch.long)
    for row, content in enumerate(bins):
        at = 0
        for tree_id, tree in enumerate(content):
            for branch_id, ids in enumerate([tree.trunk, *tree.branches]):
                piece = slice(at, at + len(ids))
                start = len(tree.trunk) if branch_id else 0
                input_ids[row, piece] = torch.tensor(ids, dtype=torch.long)
                position_ids[row, piece] = torch.arange(start, start + len(ids))
                tree_ids[row, piece] = tree_id
                branch_ids[row, piece] = branch_id
                at += len(ids)
                if branch_id:
                    rows[tree.members[branch_id - 1]] = row
                    columns[tree.members[branch_id - 1]] = at - 1
    return Packed(input_ids, _mask(tree_ids, branch_ids), position_ids, rows, columns)


def _fill_rows(trees: list[_Tree]) -> list[list[_Tree]]:
    """Rows no longer than the longest tree, filled largest first."""
    largest_first = sorted(trees, key=lambda tree: -tree.num_tokens)
    capacity = largest_first[0].num_tokens
    bins: list[list[_Tree]] = []
    room: list[int] = []
    for tree in largest_first:
        place = next((i for i, left in enumerate(room) if left >= tree.num_tokens), None)
        if place is None:
            bins.append([tree])
            room.append(capacity - tree.num_tokens)
        else:
            bins[place].append(tree)
            room[place] -= tree.num_tokens
    return bins


def _mask(tree_ids: torch.Tensor, branch_ids: torch.Tensor) -> torch.Tensor:
    """(B, 1, T, T) bool: earlier positions of the same tree, in the trunk (branch 0) or in the own branch."""
    width = tree_ids.shape[1]
    earlier = torch.ones(width, width, dtype=torch.bool).tril()
    same_tree = tree_ids[:, :, None] == tree_ids[:, None, :]
    same_branch = (branch_ids[:, :, None] == branch_ids[:, None, :]) | (branch_ids[:, None, :] == 0)
    return (earlier & same_tree & same_branch)[:, None]


def packed_logits(model: PreTrainedModel, packed: Packed, forward: Callable[..., Any] | None = None) -> torch.Tensor:
    """(N, 1) float32 scores of the packed conversations, each at its last token.

    `forward` stands for the model's own where that has been replaced.
    """
    if packed.attention_mask.dim() == 2:
        logits: torch.Tensor = (forward or model)(
            input_ids=packed.input_ids, attention_mask=packed.attention_mask
        ).logits
        return logits[packed.rows].float()
    hidden = _backbone_states(model, packed)
    last = hidden[packed.rows, packed.columns].float()
    with torch.autocast(last.device.type, enabled=False):  # a bfloat16 score has three digits, and ties
        scores: torch.Tensor = model.get_submodule("score")(last)
    return scores


def _backbone_states(model: PreTrainedModel, packed: Packed) -> torch.Tensor:
    lowest = torch.finfo(torch.float32).min
    added = torch.zeros(packed.attention_mask.shape, device=packed.input_ids.device)
    added = added.masked_fill(~packed.attention_mask, lowest).to(model.dtype)
    backbone = model.get_submodule(model.base_model_prefix)
    outputs = backbone(
        input_ids=packed.input_ids, attention_mask=added, position_ids=packed.position_ids, use_cache=False
    )
    states: torch.Tensor = outputs.last_hidden_state
    return states
