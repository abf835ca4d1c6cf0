"""Advantages of single tokens from rewards of the reasoning's steps: process supervision in GRPO.

DeepSeekMath (arXiv 2402.03300, section 4.1.3): the rewards of all steps of a group's responses are normalised together,
r~ = (r - mean) / (std + 1e-4), and a token's advantage is the sum of r~ over the steps that end at it or later. It is added,
with the reward's weight, to the advantage that the response has from the other rewards. `scale` divides as for those.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from transformers import PreTrainedTokenizerBase

from configs.records import Completion, Score
from configs.schema.rewards import CombinationConfig
from grpo_train.objective.advantages import EPSILON, Advantages, Bools, Floats

Steps = Sequence[tuple[int, float]]
"""(number of tokens up to the step's end, value) of each step, in order"""


def token_steps(tokenizer: PreTrainedTokenizerBase, completion: Completion, score: Score) -> Steps:
    """The score's steps, their ends counted in tokens instead of characters of the text."""

    def num_characters(num_tokens: int) -> int:
        return len(tokenizer.decode(completion.token_ids[:num_tokens], skip_special_tokens=True))

    numbers = range(len(completion.token_ids) + 1)
    return [(bisect_left(numbers, end, key=num_characters), value) for end, value in score.steps or []]


def add_steps(
    advantages: Advantages,
    steps: Sequence[Steps],
    lengths: Sequence[int],
    *,
    parts: Floats,
    column: int,
    weight: float,
    group_size: int,
    combination: CombinationConfig,
) -> Advantages:
    """`advantages` with those of the steps in `by_token`.

    Args:
        steps: of each of the N completions; none where nothing could be checked or the completion is left out.
        lengths: tokens of each completion.
        parts: (N,) the objective's own value of each completion, NaN where it is missing; it joins `rewards`.
        column: of the objective in `contributions`, where its part becomes the mean size of what it adds to a token.
    """
    values = [np.array([value for _, value in of_row], dtype=np.float64) for of_row in steps]
    normalized, dead = _normalized(values, group_size, combination)
    by_token = tuple(
        weight * _later_sums([end for end, _ in of_row], of_values, length)
        for of_row, of_values, length in zip(steps, normalized, lengths, strict=True)
    )
    contributions = advantages.contributions.copy()
    contributions[:, column] = [np.abs(row).mean() if row.size else 0.0 for row in by_token]
    return replace(
        advantages,
        by_token=by_token,
        rewards=advantages.rewards + weight * np.nan_to_num(parts),
        contributions=contributions,
        dead=advantages.dead & (dead | (weight == 0)),
    )


def _normalized(
    values: Sequence[Floats], group_size: int, combination: CombinationConfig
) -> tuple[list[Floats], Bools]:
    """Each row's step values less their group's mean, scaled; and which groups are without a difference."""
    batch = np.concatenate([np.empty(0), *values])  # a batch may be empty: that of the refused groups is
    batch_std = float(batch.std(ddof=1)) if batch.size > 1 else 0.0
    found: list[Floats] = []
    dead = []
    for start in range(0, len(values), group_size):
        rows = values[start : start + group_size]
        group = np.concatenate(rows)
        is_dead = group.size < 2 or float(np.ptp(group)) <= combination.reward_spread_floor
        std = {"group": float(group.std(ddof=1)) if not is_dead else 0.0, "batch": batch_std, "none": 1 - EPSILON}
        divisor = std[combination.scale] + EPSILON
        found += [np.zeros_like(row) if is_dead else (row - group.mean()) / divisor for row in rows]
        dead.append(is_dead)
    return found, np.array(dead, dtype=np.bool_)


def _later_sums(ends: Sequence[int], values: Floats, length: int) -> Floats:
    """(length,) for each token the sum of the values of the steps that end at it or later.

    >>> _later_sums([2, 3], np.array([0.5, -1.0]), 4)
    array([-0.5, -0.5, -1. ,  0. ])
    """
    found = np.zeros(length)
    for end, value in zip(ends, values, strict=True):
        found[:end] += value
    return found
