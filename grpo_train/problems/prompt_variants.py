"""Varies training prompts by templates, so that the policy does not learn one wording by heart.

All responses of a group get the same wording, drawn by problem, round and step; evaluation uses the plain one.
"""

from __future__ import annotations

from configs.records import Problem
from configs.seeds import rng_for


def varied(problem: Problem, *, seed: int, round_index: int, step: int) -> Problem:
    """The problem as this step asks it, with one of its variants as prompt where it has any."""
    if not problem.variants:
        return problem
    i = rng_for(seed, f"template {problem.key}", round_index=round_index, step=step).integers(len(problem.variants))
    return problem.model_copy(update={"prompt": problem.variants[i], "variants": []})
