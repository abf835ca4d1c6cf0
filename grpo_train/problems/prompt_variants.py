"""Prompts of training varied by templates, so that the policy does not learn one wording by heart.

A problem's group shares one wording per step, drawn by the problem, the round and the step; evaluation asks the plain one.
"""

from __future__ import annotations

from configs.records import Problem
from configs.seeds import rng_for


def varied(problem: Problem, *, seed: int, round_index: int, step: int) -> Problem:
    """The problem as this step asks it: its prompt is one of its variants, where it has any."""
    if not problem.variants:
        return problem
    drawn = rng_for(seed, f"template {problem.key}", round_index=round_index, step=step).integers(len(problem.variants))
    return problem.model_copy(update={"prompt": problem.variants[drawn], "variants": []})
