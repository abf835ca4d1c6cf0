"""Computes advantages of single tokens from rewards of reasoning steps: process supervision in GRPO.

DeepSeekMath (arXiv 2402.03300, section 4.1.3): the step rewards of all responses of a group are normalised together,
r~ = (r - mean) / (std + 1e-4), and a token's advantage is the sum of r~ over the steps that end at it or later. Times
the reward's weight, it is added to the response's advantage from the other rewards. `scale` chooses the divisor, as for
those.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from configs.records import Completion, Score
from configs.schema.rewards import CombinationConfig
from grpo_train.sampling.decoding import Decoder
from grpo_train.updating.advantages import EPSILON, Advantages, Bools, Floats

Steps = Sequence[tuple[int, float]]
"""(number of tokens up to the end of the step, its value) for each step, in order"""


def token_steps(decode: Decoder, completion: Completion, score: Score) -> Steps:
    """The score's steps, with their ends counted in tokens instead of characters of the text."""

    def num_characters(num_tokens: int) -> int:
        return len(decode(completion.token_ids[:num_tokens]))

    lengths = range(len(completion.token_ids) + 1)
    return [(bisect_left(lengths, end, key=num_characters), value) for end, value in score.steps or []]


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
    """Add the step advantages as `by_token`, and the objective's part in `rewards`, `contributions` and `dead`.

    Args:
        steps: (N,) steps of each completion; empty where nothing could be checked or the completion is left out.
        lengths: (N,) number of tokens of each completion.
        parts: (N,) the objective's score of each whole completion, NaN where missing; it is added to `rewards`.
        column: the objective's column in `contributions`, set to the mean absolute value of what it adds to a token.
    """
    values = [np.array([value for _, value in row_steps], dtype=np.float64) for row_steps in steps]
    normalized, dead = _normalized(values, group_size, combination)
    by_token = tuple(
        weight * _later_sums([end for end, _ in row_steps], row_values, length)
        for row_steps, row_values, length in zip(steps, normalized, lengths, strict=True)
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
    """(each row's step values, centred and scaled in their group; (G,) True for groups whose values do not differ)."""
    batch = np.concatenate([np.empty(0), *values])  # the batch may be empty, as that of refused groups often is
    batch_std = float(batch.std(ddof=1)) if batch.size > 1 else 0.0
    normalized: list[Floats] = []
    dead = []
    for start in range(0, len(values), group_size):
        rows = values[start : start + group_size]
        group = np.concatenate(rows)
        is_dead = group.size < 2 or float(np.ptp(group)) <= combination.reward_spread_floor
        std = {"group": float(group.std(ddof=1)) if not is_dead else 0.0, "batch": batch_std, "none": 1 - EPSILON}
        divisor = std[combination.scale] + EPSILON
        normalized += [np.zeros_like(row) if is_dead else (row - group.mean()) / divisor for row in rows]
        dead.append(is_dead)
    return normalized, np.array(dead, dtype=np.bool_)


def _later_sums(ends: Sequence[int], values: Floats, length: int) -> Floats:
    """(length,) for each token, the sum of the values of the steps that end at it or later.

    >>> _later_sums([2, 3], np.array([0.5, -1.0]), 4)
    array([-0.5, -0.5, -1. ,  0. ])
    """
    sums = np.zeros(length)
    for end, value in zip(ends, values, strict=True):
        sums[:end] += value
    return sums
