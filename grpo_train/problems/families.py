"""Reads questions and answers from the families of reasoning-gym."""

from __future__ import annotations

import json
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from configs.errors import ConfigError
from configs.schema.problems import ReasoningGymSource
from grpo_train.problems.overlap import normalized
from grpo_train.problems.raw_problem import RawProblem, as_difficulty

DRAWS_PER_PROBLEM = 20
SPARE_DRAWS = 1000
"""a family counts as exhausted after SPARE_DRAWS + DRAWS_PER_PROBLEM x size draws"""


def read_family(source: ReasoningGymSource) -> list[RawProblem]:
    """Distinct problems, drawn item by item (item i has seed + i) until there are `size` or the family is exhausted."""
    num_draws = SPARE_DRAWS + DRAWS_PER_PROBLEM * source.size
    dataset = _create_family(source, num_draws)
    problems: dict[str, RawProblem] = {}
    for i in range(num_draws):
        entry = dataset[i]
        if (question := normalized(entry["question"])) not in problems:
            problems[question] = _from_entry(entry, source.family)
        if len(problems) == source.size:
            break
    return list(problems.values())


def _from_entry(entry: dict[str, Any], family: str) -> RawProblem:
    try:
        meta = {"family": family, "entry": json.loads(json.dumps(entry))}
    except TypeError as error:
        raise ConfigError(
            f"reasoning-gym family {family!r} gives metadata that JSON cannot hold ({error}); choose another"
        ) from error
    answer = None if entry["answer"] is None else str(entry["answer"])
    difficulty = as_difficulty(entry["metadata"].get("difficulty"))
    return RawProblem(entry["question"], answer, family, meta=meta, difficulty=difficulty, is_text=False)


def _create_family(source: ReasoningGymSource, size: int) -> Any:
    from reasoning_gym.factory import DATASETS  # takes over a second to import

    if source.family not in DATASETS:
        near = get_close_matches(source.family, DATASETS, n=3) or sorted(DATASETS)[:3]
        raise ConfigError(f"reasoning-gym has no family {source.family!r}; did you mean {', '.join(near)}?")
    dataset_type, config_type = DATASETS[source.family]
    valid = sorted({option.name for option in fields(config_type)} - {"size", "seed"})
    if unknown := sorted(set(source.options) - set(valid)):
        raise ConfigError(f"family {source.family!r} has no options {unknown}; its options are {', '.join(valid)}")
    try:
        config = config_type(**source.options, size=size, seed=source.seed)
        config.validate()
        return dataset_type(config=config)
    except (AssertionError, ValueError, TypeError) as error:
        raise ConfigError(f"family {source.family!r} refuses options {source.options}: {error}") from error
