"""Combines scores of several rewards into one advantage per completion: weights, missing scores, normalisation.

Group-relative advantage (DeepSeekMath, arXiv 2402.03300, section 4.1.2): A = (r - mean) / (std + 1e-4) within the group
of one problem, std with Bessel's correction as in TRL.

- `baseline` is what is subtracted: the group's mean, or the mean of the others (RLOO, arXiv 2402.14740, which has
  `scale` none); r - mean of the others = n / (n - 1) (r - mean) for n completions.
- `scale` is what is divided by: the group's std; the batch's (arXiv 2508.08221, section 4.1), so that groups with a
  small spread weigh little; or nothing (Dr. GRPO, arXiv 2503.20783, section 3.1).
- `order` applies to several objectives. `sum_then_normalize`: r = sum_k w_k r_k, then normalise r.
  `normalize_then_sum`: normalise each r_k in its group, sum with weights, divide by the batch's std whatever `scale` is
  (GDPO, arXiv 2601.05242, eq. 4 to 6); this tells rewards (1, 0) from (0, 1).

An objective may score the problems of some sources only. A sum is over those that apply to the group, and a std of the
batch is that of the groups to which the same objectives apply: sums of others are on another scale. The papers have one
kind of problem.

A group is dead when it teaches nothing: its highest and lowest rewards are no more than `spread_floor` apart (a test
for std == 0 would let float noise keep it alive). A missing score is filled with the group's mean of that objective, so
that it favours no completion; an objective that is missing in the whole group adds 0; a completion without any score
stays out of mean and std and gets 0. A floor keeps an objective from being traded away: it caps the sum of a completion
that is under it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from configs.records import Completion

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
EPSILON = 1e-4


@dataclass(frozen=True)
class ValueTargets:
    """What a value model learns from N responses."""

    values: tuple[Floats, ...]
    """(T_i,) per completion, the value before each of its tokens, by the value model as it was"""
    returns: tuple[Floats, ...]
    """(T_i,) per completion, what the values should have been; NaN for completions without any score"""


@dataclass(frozen=True)
class Advantages:
    """The advantages of N completions in groups of `group_size`, under K objectives."""

    values: Floats
    """(N,) advantages; exactly 0 in dead groups and for completions without any score"""
    rewards: Floats
    """(N,) weighted sum of the scores, missing ones filled; NaN for completions without any score"""
    dead: Bools
    """(N / group_size,) True for groups whose rewards do not differ"""
    contributions: Floats
    """(N, K) what each objective adds to `values`; if it scores single steps, its mean absolute addition to a token"""
    by_token: tuple[Floats, ...] | None = None
    """(T_i,) per completion, what a reward of single steps, or a value model, adds to each token's advantage; None where there is
    neither"""
    targets: ValueTargets | None = None
    """what the value model learns; None for methods without one"""

    @property
    def means(self) -> Floats:
        """(N,) advantage of each completion, averaged over its tokens."""
        if self.by_token is None:
            return self.values
        of_steps = np.array([row.mean() if row.size else 0.0 for row in self.by_token], dtype=np.float64)
        return np.asarray(self.values + of_steps)

    @property
    def moves(self) -> Bools:
        """(N,) whether a completion has any token with an advantage other than 0."""
        if self.by_token is None:
            return np.asarray(self.values != 0.0)
        pairs = zip(self.values, self.by_token, strict=True)
        return np.array([value != 0.0 or bool((row != 0.0).any()) for value, row in pairs], dtype=np.bool_)

    @property
    def sizes(self) -> Floats:
        """(N,) size of each completion's advantage: its absolute value, or the root mean square over tokens where those differ."""
        if self.by_token is None:
            return np.abs(self.values)
        pairs = zip(self.values, self.by_token, strict=True)
        squares = [float(np.mean((value + row) ** 2)) if row.size else value**2 for value, row in pairs]
        return np.sqrt(np.array(squares, dtype=np.float64))

    def of(self, rows: Sequence[int], width: int) -> Floats:
        """(B,) advantages of the completions in `rows`, or (B, width) of their tokens if those differ, 0 on padding."""
        values = self.values[rows]
        if self.by_token is None:
            return values
        matrix = np.zeros((len(rows), width))
        for i, row in enumerate(rows):
            length = len(self.by_token[row])
            matrix[i, :length] = values[i] + self.by_token[row]
        return matrix

    def kept(self, keep: Bools) -> Advantages:
        """The advantages of the completions in `keep`; filters only what the update reads: `values`, `by_token` and
        `targets`."""

        def kept_of(rows: tuple[Floats, ...]) -> tuple[Floats, ...]:
            return tuple(row for row, is_kept in zip(rows, keep, strict=True) if is_kept)

        by_token = self.by_token and kept_of(self.by_token)
        targets = self.targets and ValueTargets(kept_of(self.targets.values), kept_of(self.targets.returns))
        return replace(self, values=self.values[keep], by_token=by_token, targets=targets)

    @property
    def shares(self) -> Floats:
        """(K,) each objective's share of the summed absolute contributions; 0 where every group is dead."""
        absolute = np.abs(self.contributions).sum(axis=0)
        total = absolute.sum()
        return absolute / total if total > 0 else np.zeros_like(absolute)


@dataclass(frozen=True)
class Scored:
    """The scores of N completions in groups of `group_size`, under K objectives: what a method makes advantages of."""

    parts: Floats
    """(N, K) scores, NaN where missing; all NaN in completions that are left out"""
    weights: Floats
    """(K,)"""
    floors: Floats
    """(K, 2) [below, cap] of each objective, NaN where it has none"""
    group_size: int
    alike: Ints
    """(G,) a number for each group, the same where the same objectives apply"""
    completions: Sequence[Completion] = ()
    """(N,) the completions themselves, for a method that looks at their tokens"""

    def weighted(self) -> tuple[Floats, Floats]:
        """((N, K) weighted scores, missing ones filled and floors applied; (N,) their sums, NaN for completions without any)."""
        groups = self.parts.reshape(-1, self.group_size, len(self.weights))
        filled = _fill_missing(groups)
        weighted = _capped(filled * self.weights, filled, groups, self.floors).reshape(self.parts.shape)
        return weighted, np.where(np.isnan(self.parts).all(axis=1), np.nan, weighted.sum(axis=1))


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
    alike: Ints | None = None,
) -> Advantages:
    """Advantages of (N, K) parts, the scores of each completion; NaN where missing, rows of a group next to each other.

    `alike` (G,) numbers the groups, those of equal number having one std of the batch; by default all have the same.

    `floors` (K, 2) holds [below, cap] of each objective, NaN where it has none: the sum of a row whose part is under
    `below` is capped at `cap`, and the reduction counts as that objective's contribution. A missing part is compared by
    its filled value.

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
    alike = np.zeros(len(groups), dtype=np.int64) if alike is None else alike
    if order == "sum_then_normalize":
        contributions, dead = _normalize_sum(centered, rewards, scale, spread_floor, alike)
    else:
        contributions, dead = _normalize_each(centered, weighted, scored, weights, spread_floor, alike)
    if baseline == "leave_one_out":
        contributions = contributions * _leave_one_out_factor(scored)
    flat = contributions.reshape(num_rows, num_objectives)
    return Advantages(values=flat.sum(axis=1), rewards=rewards.reshape(-1), dead=dead, contributions=flat)


def _leave_one_out_factor(scored: Bools) -> Floats:
    """(G, 1, 1) n / (n - 1) for the n scored rows of each group; a single row has advantage 0 whatever the factor."""
    num_scored = scored.sum(axis=1)[:, None, None]
    return np.asarray(num_scored / np.maximum(num_scored - 1, 1))


def _fill_missing(groups: Floats) -> Floats:
    """(G, S, K) with each NaN replaced by the group's mean of that objective, or 0 where the whole group lacks it."""
    known = ~np.isnan(groups)
    means = _mean_of(np.where(known, groups, 0.0), known)
    # rounded, the mean of equal values may lie beside them, and then on the other side of a floor
    lowest = np.where(known, groups, np.inf).min(axis=1, keepdims=True)
    highest = np.where(known, groups, -np.inf).max(axis=1, keepdims=True)
    within = np.where(known.any(axis=1, keepdims=True), np.clip(means, lowest, highest), 0.0)
    return np.where(known, groups, within)


def _capped(weighted: Floats, filled: Floats, groups: Floats, floors: Floats) -> Floats:
    """(G, S, K) weighted parts, reduced so that a row sums to no more than the cap of every floor that it is under."""
    is_known: Bools = np.logical_not(
        np.isnan(groups).all(axis=1, keepdims=True)
    )  # an objective that nobody scored is under no floor
    result = weighted.copy()
    for k, (below, cap) in enumerate(floors):
        excess = np.maximum(result.sum(axis=2) - cap, 0.0)  # NaN without a floor; then no row is under it
        result[:, :, k] -= np.where((filled[:, :, k] < below) & is_known[:, :, k], excess, 0.0)
    return result


def _mean_of(values: Floats, counted: Bools) -> Floats:
    """(G, 1, K) mean over the counted rows of each group, 0 where none counts; `counted` is (G, S) or (G, S, K)."""
    counted = np.broadcast_to(counted[..., None] if counted.ndim == 2 else counted, values.shape)
    num_counted = counted.sum(axis=1, keepdims=True)
    total = np.where(counted, values, 0.0).sum(axis=1, keepdims=True)
    return np.asarray(total / np.maximum(num_counted, 1))


def _normalize_sum(centered: Floats, rewards: Floats, scale: str, floor: float, alike: Ints) -> tuple[Floats, Bools]:
    alive = _spread(rewards) > floor
    divisor = _divisor(centered, rewards, scale, alike)
    return np.where(alive[:, None, None], centered / divisor[:, None, None], 0.0), ~alive


def _divisor(centered: Floats, rewards: Floats, scale: str, alike: Ints) -> Floats:
    """(G,) the divisor of each group's centred rewards."""
    known = ~np.isnan(rewards)
    if scale == "none":
        return np.ones(len(rewards))
    if scale == "group":
        return _std(centered.sum(axis=2), known) + EPSILON
    return _batch_std(rewards, known, alike) + EPSILON


def _batch_std(values: Floats, counted: Bools, alike: Ints) -> Floats:
    """(G,) std of the counted (G, S) values over all groups that are alike; 0 where there are fewer than two."""
    stds = np.zeros(len(values))
    for number in np.unique(alike):
        members = alike == number
        its = values[members][counted[members]]
        stds[members] = float(its.std(ddof=1)) if its.size > 1 else 0.0
    return stds


def _normalize_each(
    centered: Floats, weighted: Floats, scored: Bools, weights: Floats, floor: float, alike: Ints
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
    batch_std = _batch_std(normalized.sum(axis=2), scored, alike)
    dead: Bools = np.logical_not(np.abs(normalized).any(axis=(1, 2)))
    return normalized / (batch_std + EPSILON)[:, None, None], dead


def _spread(rewards: Floats) -> Floats:
    """(G,) max - min over the scored rows of (G, S) rewards; 0 where fewer than two are scored."""
    highest = np.where(np.isnan(rewards), -np.inf, rewards).max(axis=1)
    lowest = np.where(np.isnan(rewards), np.inf, rewards).min(axis=1)
    return np.asarray(np.maximum(highest - lowest, 0.0))


def _std(centered: Floats, counted: Bools) -> Floats:
    """(G,) standard deviation, with Bessel's correction, over the counted rows of centred (G, S) rewards."""
    squares = np.where(counted, centered**2, 0.0).sum(axis=1)
    return np.asarray(np.sqrt(squares / np.maximum(counted.sum(axis=1) - 1, 1)))
