"""Which members of a comparison there are to work on, in their order."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from pathlib import Path

from configs.schema.comparing.compare import Comparison, Member
from flows.summary import is_finished
from tasks.comparing.analysis import best_factors


def first_members(comparison: Comparison, date: datetime.date) -> list[Member]:
    """Those that choose the learning rates, in the order in which they are worked on."""
    return _seed_by_seed(comparison, comparison.first_members(date))


def planned(root: Path, comparison: Comparison, date: datetime.date) -> list[Member]:
    """`first_members`, and after them those of the seeds that the best learning rates alone are run with.

    Until these are known, the first rate of the file stands for each.
    """
    first, compare = first_members(comparison, date), comparison.compare
    if compare.rate_seeds == compare.seeds:
        return first
    factors = dict.fromkeys(compare.methods, compare.learning_rate_factors[0])
    if all(is_finished(root, member.config) for member in first):
        factors = best_factors(root, comparison)
    return first + _seed_by_seed(comparison, comparison.later_members(factors, date))


def _seed_by_seed(comparison: Comparison, members: Iterable[Member]) -> list[Member]:
    """So that what is there of a comparison that was broken off has all methods."""
    return sorted(members, key=lambda member: comparison.compare.seeds.index(member.seed))
