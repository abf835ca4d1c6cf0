"""Lets a part of a step's rows into its update, without bias: importance sampling of rows by their advantages.

The policy part of the loss is a sum over rows, and what a row adds to the gradient grows with its advantage. Row i is kept
with probability p_i = min(1, c |A_i|), c such that a given share is kept, and counts 1 / p_i times: the mean over draws
is the sum over all rows, whatever the p_i are (Horvitz and Thompson 1952). Probabilities in proportion to a row's
contribution make the variance smallest for the number of rows (Katharopoulos and Fleuret, arXiv 1803.00942, section 3.2).
PODS (arXiv 2504.13818) keeps the rows with the most extreme rewards instead, unweighted, which is another gradient.

A KL term is a sum over rows too, whose parts do not grow with advantages. With it all rows are drawn from, and |A_i| gets a
part that is the same for all, so that no weight is far over 1 / share (defensive mixture, Hesterberg 1995, Technometrics 37(2)).
On the quickstart's rows at half of them, this part makes the second moment of the policy part 2% larger, and that of the KL
term 3 times what it is with all rows.

The rows are drawn systematically: one random number for all, so that their number hardly differs from draw to draw, and
that of each group little.
"""

from __future__ import annotations

import numpy as np

from grpo_train.updating.advantages import Advantages, Bools, Floats

EVEN_PART = 0.25
"""of the sizes with a KL term, what is the same for all rows"""
CERTAIN = 1 - 1e-12
"""what is more is 1 but for the rounding of sums, and would leave a row out once in a long time"""


def row_weights(advantages: Advantages, share: float, rng: np.random.Generator, *, has_kl_term: bool = False) -> Floats:
    """(N,) how often each row counts: 1 / p for those kept, 0 for those left out and those that do not move the policy.

    Args:
        share: of the rows that move the policy, with a KL term of all rows, how many are kept; 1 keeps them all, with weight 1.
    """
    sizes = with_even_part(advantages.sizes) if has_kl_term else advantages.sizes
    probabilities = keeping_probabilities(sizes, share)
    kept = _drawn(probabilities, rng.random())
    return np.where(kept, 1 / np.where(kept, probabilities, 1.0), 0.0)


def with_even_part(sizes: Floats) -> Floats:
    """(N,) the sizes, a part of their sum spread evenly over the rows; all 1 where all are 0."""
    return (1 - EVEN_PART) * sizes + EVEN_PART * sizes.mean() if sizes.any() else np.ones_like(sizes)


def keeping_probabilities(sizes: Floats, share: float) -> Floats:
    """(N,) min(1, c size), c such that they add up to `share` of the number of sizes over 0."""
    probabilities = np.zeros_like(sizes)
    order = np.argsort(-sizes, kind="stable")
    order = order[sizes[order] > 0]
    num_left = share * len(order)
    rest = np.cumsum(sizes[order][::-1])[::-1]  # a size and all smaller ones
    for place, row in enumerate(order):
        if num_left * sizes[row] <= rest[place]:
            shares = num_left * sizes[order[place:]] / rest[place]
            probabilities[order[place:]] = np.where(shares > CERTAIN, 1.0, shares)
            break
        probabilities[row] = 1.0
        num_left -= 1
    return probabilities


def _drawn(probabilities: Floats, offset: float) -> Bools:
    """(N,) bool, each with its probability: points one apart, from `offset` on, on a line of pieces as long as they are."""
    certain = probabilities == 1.0
    ends = np.cumsum(np.where(certain, 0.0, probabilities))
    points_before = np.floor(ends - offset)
    return np.asarray(certain | (np.diff(points_before, prepend=np.floor(-offset)) > 0))
