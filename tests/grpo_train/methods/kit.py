"""Scores that tests of methods write down."""

from __future__ import annotations

from itertools import product

import numpy as np

from grpo_train.methods.method import Method
from grpo_train.updating.advantages import Floats, Scored

NAN = float("nan")


def scored(rows: list[list[float]], group_size: int, *, weights: list[float] | None = None) -> Scored:
    """N rows of K scores under weights that are 1 by default, without floors."""
    parts = np.array(rows, dtype=np.float64)
    num_rows, num_objectives = parts.shape
    return Scored(
        parts=parts,
        weights=np.ones(num_objectives) if weights is None else np.array(weights),
        floors=np.full((num_objectives, 2), NAN),
        group_size=group_size,
        alike=np.zeros(num_rows // group_size, dtype=np.int64),
    )


def column(*values: float, group_size: int) -> Scored:
    """One objective's scores."""
    return scored([[value] for value in values], group_size)


def exact_gradient(probabilities: Floats, rewards: Floats) -> Floats:
    """Of E[r] in the logits of a policy over actions with these probabilities: p (r - E[r])."""
    return np.asarray(probabilities * (rewards - probabilities @ rewards))


def mean_gradient(method: Method, probabilities: Floats, rewards: Floats, *, group_size: int) -> Floats:
    """The mean over all batches of two responses of sum A grad log p / 2: each batch with its probability, so without an error."""
    mean, actions = np.zeros(len(rewards)), range(len(rewards))
    for batch in product(actions, repeat=2):
        values = method.advantages(column(*rewards[list(batch)], group_size=group_size)).values
        scores = [np.eye(len(rewards))[action] - probabilities for action in batch]
        mean += probabilities[list(batch)].prod() * (values[0] * scores[0] + values[1] * scores[1]) / 2
    return mean
