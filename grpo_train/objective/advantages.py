"""Several rewards become one advantage: combination, weights, missing parts and the group's normalisation, nothing else.

Group-relative advantage (DeepSeekMath, arXiv 2402.03300, section 4.1.2), A = (r - mean) / (std + 1e-4) within the group of
one problem, std with Bessel's correction as in TRL. `baseline` says what to compare with: that mean, or the mean of the
others (RLOO, arXiv 2402.14740, which has `scale` none); r - mean of the others = n / (n - 1) (r - mean) for n completions.
`scale` says what to divide by: the group's std; the batch's (arXiv 2508.08221, section 4.1), so that groups with a small
spread weigh little; or nothing (Dr. GRPO, arXiv 2503.20783, section 3.1). Two orders for several objectives:

- `sum_then_normalize`: r = sum_k w_k r_k, then normalise r.
- `normalize_then_sum`: normalise each r_k in its group, sum with weights, divide by the batch's std (GDPO, arXiv 2601.05242,
  eq. 4 to 6); tells rewards (1, 0) from (0, 1).

A group is dead when it teaches nothing: highest and lowest reward no more than `spread_floor` apart (telling it by std == 0
would let float noise keep it alive). A missing part takes the mean of its group's scored values, so it moves nobody; an
objective that nobody in the group scored adds 0; a completion without any part stays out of mean and std and gets 0. A floor
keeps an objective from being traded away: it caps the sum of a completion that is under it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
EPSILON = 1e-4


@dataclass(frozen=True)
class Advantages:
    """Of N completions in groups of `group_size`, over K objectives."""

    values: Floats
    """(N,) advantages; exactly 0 in dead groups and for completions that nothing scored"""
    rewards: Floats
    """(N,) weighted sum of the parts, missing ones filled; NaN where nothing scored the completion"""
    dead: Bools
    """(N / group_size,) groups without a difference"""
    contributions: Floats
    """(N, K) what each objective adds to `values`"""
    by_token: tuple[Floats, ...] | None = None
    """(T_i,) of each completion, what rewards of single steps add to its tokens; None where no reward is kept per step"""

    @property
    def means(self) -> Floats:
        """(N,) mean advantage of each completion's tokens."""
        if self.by_token is None:
            return self.values
        of_steps = np.array([row.mean() if row.size else 0.0 for row in self.by_token], dtype=np.float64)
        return np.asarray(self.values + of_steps)

    @property
    def moves(self) -> Bools:
        """(N,) whether a completion has a token with an advantage other than 0."""
        if self.by_token is None:
            return np.asarray(self.values != 0.0)
        pairs = zip(self.values, self.by_token, strict=True)
        return np.array([value != 0.0 or bool((row != 0.0).any()) for value, row in pairs], dtype=np.bool_)

    def of(self, rows: Sequence[int], width: int) -> Floats:
        """(B,) advantages of some completions, or (B, width) of their tokens, 0 behind each one's end."""
        values = self.values[rows]
        if self.by_token is None:
            return values
        matrix = np.zeros((len(rows), width))
        for place, row in enumerate(rows):
            length = len(self.by_token[row])
            matrix[place, :length] = values[place] + self.by_token[row]
        return matrix

    def kept(self, keep: Bools) -> Advantages:
        """Those of some completions, as the update needs them."""
        by_token = self.by_token and tuple(row for row, is_kept in zip(self.by_token, keep, strict=True) if is_kept)
        return replace(self, values=self.values[keep], by_token=by_token)

    @property
    def shares(self) -> Floats:
        """(K,) each objective's share of the summed absolute contributions; 0 where every group is dead."""
        absolute = np.abs(self.contributions).sum(axis=0)
        total = absolute.sum()
        return absolute / total if total > 0 else np.zeros_like(absolute)


def group_advantages(
    parts: Floats,
    weights: Floats,
    group_size: int,
    *,
    order: Literal["sum_then_normalize", "normalize_then_sum"] = "sum_then_normalize",
    scale: Literal["group", "batch", "none"] = "group",
    baseline: Literal["mean", "leave_one_out"] = "mean",
    spread_floor: float = 1e-6,
    floors: Floats | None = None,
) -> Advantages:
    """Advantages of (N, K) parts, NaN for missing, rows of one group next to each other.

    `floors` (K, 2) has [below, cap] of each objective, NaN where there is none: the sum of a row whose part is under `below` is at
    most `cap`, and what that takes away is that objective's contribution. Missing parts count as they are filled.

    Raises:
        ValueError: N is no multiple of `group_size`, or K differs from the number of weights.
    """
    num_rows, num_objectives = parts.shape
    if num_rows % group_size or len(weights) != num_objectives:
        raise ValueError(
            f"parts are {parts.shape}, group_size is {group_size} and weights are {len(weights)}; "
            "rows must be whole groups and columns one a weight"
        )
    groups = parts.reshape(-1, group_size, num_objectives)
    scored: Bools = np.logical_not(np.isnan(groups).all(axis=2))
    filled = _fill_missing(groups)
    weighted = filled * weights if floors is None else _capped(filled * weights, filled, groups, floors)
    rewards = np.where(scored, weighted.sum(axis=2), np.nan)
    centered = np.where(scored[:, :, None], weighted - _mean_of(weighted, scored), 0.0)
    if order == "sum_then_normalize":
        contributions, dead = _normalize_sum(centered, rewards, scale, spread_floor)
    else:
        contributions, dead = _normalize_each(centered, weighted, scored, weights, spread_floor)
    if baseline == "leave_one_out":
        contributions = contributions * _over_the_others(scored)
    flat = contributions.reshape(num_rows, num_objectives)
    return Advantages(values=flat.sum(axis=1), rewards=rewards.reshape(-1), dead=dead, contributions=flat)


def _over_the_others(scored: Bools) -> Floats:
    """(G, 1, 1) n / (n - 1) of each group's n scored rows; a single one has advantage 0 whatever it is multiplied by."""
    number = scored.sum(axis=1)[:, None, None]
    return np.asarray(number / np.maximum(number - 1, 1))


def _fill_missing(groups: Floats) -> Floats:
    """(G, S, K) with each NaN replaced by its group's mean of that objective, 0 where the group has none."""
    known = ~np.isnan(groups)
    means = _mean_of(np.where(known, groups, 0.0), known)
    return np.where(known, groups, means)


def _capped(weighted: Floats, filled: Floats, groups: Floats, floors: Floats) -> Floats:
    """(G, S, K) weighted parts that sum up to no more than the cap of each floor that the row is under."""
    is_known: Bools = np.logical_not(
        np.isnan(groups).all(axis=1, keepdims=True)
    )  # an objective that nobody scored is under no floor
    result = weighted.copy()
    for k, (below, cap) in enumerate(floors):
        excess = np.maximum(result.sum(axis=2) - cap, 0.0)  # NaN without a floor, and NaN is under nothing
        result[:, :, k] -= np.where((filled[:, :, k] < below) & is_known[:, :, k], excess, 0.0)
    return result


def _mean_of(values: Floats, counted: Bools) -> Floats:
    """Mean over the group's counted rows, (G, 1, K); 0 where none counts. `counted` is (G, S) or (G, S, K)."""
    counted = np.broadcast_to(counted[..., None] if counted.ndim == 2 else counted, values.shape)
    number = counted.sum(axis=1, keepdims=True)
    total = np.where(counted, values, 0.0).sum(axis=1, keepdims=True)
    return np.asarray(total / np.maximum(number, 1))


def _normalize_sum(centered: Floats, rewards: Floats, scale: str, floor: float) -> tuple[Floats, Bools]:
    alive = _spread(rewards) > floor
    divisor = _divisor(centered, rewards, scale)
    return np.where(alive[:, None, None], centered / divisor[:, None, None], 0.0), ~alive


def _divisor(centered: Floats, rewards: Floats, scale: str) -> Floats:
    """(G,) what the centred rewards of each group are divided by."""
    known = ~np.isnan(rewards)
    if scale == "none":
        return np.ones(len(rewards))
    if scale == "group":
        return _std(centered.sum(axis=2), known) + EPSILON
    batch_std = float(rewards[known].std(ddof=1)) if known.sum() > 1 else 0.0
    return np.full(len(rewards), batch_std + EPSILON)


def _normalize_each(
    centered: Floats, weighted: Floats, scored: Bools, weights: Floats, floor: float
) -> tuple[Floats, Bools]:
    num_objectives = centered.shape[2]
    normalized = np.zeros_like(centered)
    for k in range(num_objectives):
        if weights[k] == 0:
            continue
        unweighted = np.where(scored, weighted[:, :, k] / weights[k], np.nan)
        std = _std(centered[:, :, k] / weights[k], scored)
        alive = _spread(unweighted) > floor
        normalized[:, :, k] = np.where(alive[:, None], centered[:, :, k] / (std + EPSILON)[:, None], 0.0)
    summed = normalized.sum(axis=2)[scored]
    batch_std = float(summed.std(ddof=1)) if summed.size > 1 else 0.0
    dead: Bools = np.logical_not(np.abs(normalized).any(axis=(1, 2)))
    return normalized / (batch_std + EPSILON), dead


def _spread(rewards: Floats) -> Floats:
    """(G,) max - min over the scored rows of (G, S); 0 where fewer than two are scored."""
    highest = np.where(np.isnan(rewards), -np.inf, rewards).max(axis=1)
    lowest = np.where(np.isnan(rewards), np.inf, rewards).min(axis=1)
    return np.asarray(np.maximum(highest - lowest, 0.0))


def _std(centered: Floats, counted: Bools) -> Floats:
    """(G,) standard deviation with Bessel's correction over the counted rows of centred (G, S)."""
    squares = np.where(counted, centered**2, 0.0).sum(axis=1)
    return np.asarray(np.sqrt(squares / np.maximum(counted.sum(axis=1) - 1, 1)))
