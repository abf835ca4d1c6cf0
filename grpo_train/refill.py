"""Dynamic sampling (DAPO, arXiv 2503.14476, section 3.2): replaces dead groups by groups of fresh problems.

A dead group teaches nothing. The paper samples whole batches until one is full of living groups. Here each refill round
samples exactly as many fresh problems as there are dead groups and puts each in the place of a dead one: the batch
keeps its size, and no living group is thrown away. Groups that are still dead after `refill` rounds, or when the
problems run out, stay in the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from grpo_train.groups import Groups
from grpo_train.updating.advantages import Bools


@dataclass(frozen=True)
class Refilled:
    """A batch after dynamic sampling."""

    batch: Groups
    refused: Groups
    """dead groups that were replaced, in the order of their replacement"""
    num_refills: int
    """number of refill rounds"""


def refill(
    batch: Groups, max_refills: int, *, is_dead: Callable[[Groups], Bools], ask: Callable[[int, int], Groups]
) -> Refilled:
    """Replace dead groups by groups of fresh problems, in at most `max_refills` refill rounds.

    Args:
        is_dead: (G,) which of the groups are dead; must judge each group independently of the others.
        ask: `ask(attempt, num_problems)` samples groups of that many fresh problems (fewer where they run out) in
            refill round `attempt`, counted from 1.
    """
    refused = Groups()
    for attempt in range(1, max_refills + 1):
        dead = np.flatnonzero(is_dead(batch)).tolist()
        fresh = ask(attempt, len(dead)) if dead else Groups()
        if not fresh.problems:
            return Refilled(batch, refused, attempt - 1)
        places = dead[: len(fresh.problems)]
        refused += batch.chosen(places)
        # fresh group i has index len(batch.problems) + i in batch + fresh
        new_index = dict(zip(places, range(len(batch.problems), len(batch.problems) + len(places)), strict=True))
        batch = (batch + fresh).chosen([new_index.get(i, i) for i in range(len(batch.problems))])
    return Refilled(batch, refused, max_refills)
