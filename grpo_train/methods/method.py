"""The interface of methods: how the scores of a step's responses become advantages.

The rest of a step is the same for all: it picks problems, samples, scores, follows the gradient of `grpo_config.loss`, and
reports.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from grpo_train.updating.advantages import Advantages, Bools, Scored


class Method(Protocol):
    """Turns scores into advantages. A method that remembers something is an `Observer` too."""

    def advantages(self, scored: Scored) -> Advantages:
        """The advantages of the N responses; those without any score have 0."""

    def in_loss(self, advantages: Advantages) -> Bools:
        """(N,) which responses the loss counts: its denominators are theirs."""


def all_count(advantages: Advantages) -> Bools:
    """(N,) True: also a response that does not move the policy is one of those over which the loss is a mean."""
    return np.ones(len(advantages.values), dtype=np.bool_)
