"""Reads questions and answers from the families of reasoning-gym.

A child process makes them, with a fixed hash seed (see `family_worker`), so that doctor, run and follow-on have the same.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

from configs.errors import ConfigError
from configs.schema.problems import ReasoningGymSource
from grpo_train.problems.raw_problem import RawProblem, as_difficulty
from reward_training.answers.entries import decoded
from reward_training.rewards.checker_pool import SAME_IN_EACH

LIMIT_S = 120.0
"""seconds in which a family has to come up with a question that it has not asked yet"""


def read_families(sources: Sequence[ReasoningGymSource]) -> list[list[RawProblem]]:
    """Distinct problems of each source: `size` of them, or fewer where the family is exhausted.

    Raises:
        ConfigError: a family does not exist, refuses its options, fails, or takes too long.
    """
    given = [source.model_dump(mode="json", include={"family", "options", "size", "seed"}) for source in sources]
    if not given:
        return []
    entries = _read(_written(json.dumps({"sources": given, "limit_s": LIMIT_S})), given)
    return [[_problem(e, s) for e in members] for s, members in zip(sources, entries, strict=True)]


def _problem(entry: dict[str, Any], source: ReasoningGymSource) -> RawProblem:
    """The problem, with what the family's scorer needs: the entry as the library made it, and the family's options."""
    options = source.model_dump(mode="json")["options"]
    meta = {"family": source.family, "entry": entry} | ({"options": options} if options else {})
    answer = None if entry["answer"] is None else str(decoded(entry["answer"]))
    difficulty = as_difficulty(entry["metadata"].get("difficulty"))
    return RawProblem(entry["question"], answer, source.family, meta=meta, difficulty=difficulty, is_text=False)


@lru_cache(maxsize=1)
def _written(job: str) -> subprocess.CompletedProcess[bytes]:
    """What a child process makes of the job; checks and run ask for the same one, and some families are slow."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "grpo_train.problems.family_worker"],
        input=job.encode(),
        capture_output=True,
        env={**os.environ, **SAME_IN_EACH},
        check=False,
    )


def _read(child: subprocess.CompletedProcess[bytes], sources: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The encoded entries of each source.

    Raises:
        ConfigError: the child did not come to the end of a source.
    """
    lines = [json.loads(line) for line in child.stdout.splitlines()]
    ends = [i for i, line in enumerate(lines) if "done" in line]
    if len(ends) < len(sources):
        rest = lines[ends[-1] + 1 if ends else 0 :]
        raise ConfigError(_failure(sources[len(ends)], rest, child))
    return [[line["entry"] for line in lines[start + 1 : end]] for start, end in pairwise([-1, *ends])]


def _failure(source: dict[str, Any], lines: list[dict[str, Any]], child: subprocess.CompletedProcess[bytes]) -> str:
    """Why there are no problems of the source; `lines` are what the child wrote of it."""
    if lines and "error" in lines[-1]:
        return str(lines[-1]["error"])
    family, found = f"family {source['family']!r} with options {source['options']}", len(lines)
    if child.returncode == -signal.SIGALRM:
        limit_s = f"in {LIMIT_S:g} s"
        if found == 0:
            return f"{family} makes no question {limit_s}; change the options"
        return f"{family} makes {found} of {source['size']} questions and no other one {limit_s}; set size: {found}, or change the options"
    said = child.stderr.decode(errors="replace").strip().splitlines()
    return f"{family} ended its process (exit code {child.returncode}): {said[-1] if said else 'no message'}; choose another"
