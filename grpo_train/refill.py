"""Dynamic sampling (DAPO, arXiv 2503.14476, section 3.2): groups that teach nothing give way to fresh problems.

The paper samples whole batches until one of living groups is full. Here each further round of sampling asks exactly as many
fresh problems as there are dead groups, each of which takes the place of one: the batch keeps its size, and no living
group is thrown away. After `refill` rounds, or when no problem is left, what is dead stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from grpo_train.groups import Groups
from grpo_train.objective.advantages import Bools


@dataclass(frozen=True)
class Refilled:
    """A batch after dynamic sampling."""

    batch: Groups
    refused: Groups
    """dead groups that gave way, in the order they were asked"""
    num_rounds: int
    """further rounds of sampling"""


def refill(
    batch: Groups, most: int, *, is_dead: Callable[[Groups], Bools], ask: Callable[[int, int], Groups]
) -> Refilled:
    """Ask fresh problems in place of dead groups, at most `most` times.

    Args:
        is_dead: (G,) of groups; whether one is dead must not depend on the others.
        ask: groups of so many fresh problems (fewer where there are no more) in further round 1, 2, ...
    """
    refused = Groups()
    for number in range(1, most + 1):
        dead = np.flatnonzero(is_dead(batch)).tolist()
        fresh = ask(number, len(dead)) if dead else Groups()
        if not fresh.problems:
            return Refilled(batch, refused, number - 1)
        leaving = dead[: len(fresh.problems)]
        refused += batch.chosen(leaving)
        # fresh group i stands behind the batch at place len(batch.problems) + i
        arriving = dict(zip(leaving, range(len(batch.problems), len(batch.problems) + len(leaving)), strict=True))
        batch = (batch + fresh).chosen([arriving.get(place, place) for place in range(len(batch.problems))])
    return Refilled(batch, refused, most)
