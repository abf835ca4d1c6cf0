"""The program that makes problems of reasoning-gym's families, the same ones in each process that runs it.

Some families draw from sets of texts, whose order changes with the hash seed, or from the generators that all code of a
process shares. So `families` starts this program with a fixed hash seed, and before each draw it seeds those generators.
It reads the sources from standard input, and writes a line of JSON for each distinct problem and for each source's end.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from typing import Any

from configs.errors import ConfigError
from grpo_train.problems.overlap import normalized
from reward_training.answers.entries import encoded
from reward_training.answers.families import family_dataset, reason, seed_generators
from reward_training.rewards.checker_worker import private_output

DRAWS_PER_PROBLEM = 20
SPARE_DRAWS = 1000
"""a family counts as exhausted after SPARE_DRAWS + DRAWS_PER_PROBLEM x size draws"""
BLOCK = 1000
"""draws from one data set of the library; the next ones come from one whose seed is that much higher. Some families make
everything at the start, which costs the more the larger they are, or refuse a large size"""


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then kills us
    lines = private_output()
    job = json.load(sys.stdin)
    for source in job["sources"]:
        signal.setitimer(signal.ITIMER_REAL, job["limit_s"])  # SIGALRM ends the process, wherever it is
        try:
            for entry in entries(source):
                lines.write(json.dumps({"entry": entry}) + "\n")
                lines.flush()
                signal.setitimer(signal.ITIMER_REAL, job["limit_s"])
        except ConfigError as error:
            lines.write(json.dumps({"error": str(error)}) + "\n")
            return
        lines.write(json.dumps({"done": True}) + "\n")


def entries(source: dict[str, Any]) -> Iterator[Any]:
    """Encoded entries with distinct questions, until there are `size` or the family is exhausted.

    Raises:
        ConfigError: the family gives none, or what it gives cannot be kept.
    """
    questions: set[str] = set()
    for entry in _draws(source):
        if (question := normalized(entry["question"])) in questions:
            continue
        questions.add(question)
        try:
            yield encoded(entry)
        except TypeError as error:
            raise ConfigError(
                f"reasoning-gym family {source['family']!r} gives {error}, which a problem file cannot hold; choose another"
            ) from error
        if len(questions) == source["size"]:
            return


def _draws(source: dict[str, Any]) -> Iterator[Any]:
    """Entry i is made with the seed `seed` + i."""
    family, options, seed = source["family"], source["options"], source["seed"]
    num_draws = SPARE_DRAWS + DRAWS_PER_PROBLEM * source["size"]
    for start in range(seed, seed + num_draws, BLOCK):
        seed_generators(start)
        dataset = family_dataset(family, options, seed=start, size=BLOCK)
        for i in range(min(BLOCK, seed + num_draws - start)):
            seed_generators(start + i)
            try:
                entry = dataset[i]
            except IndexError as error:  # the library's sign that a data set is at its end
                if start + i == seed:
                    raise _refused(source, i, error) from error
                break
            except Exception as error:  # whatever a family raises is told with its name
                raise _refused(source, start + i - seed, error) from error
            yield entry


def _refused(source: dict[str, Any], i: int, error: Exception) -> ConfigError:
    return ConfigError(
        f"family {source['family']!r} with options {source['options']} fails at its problem {i}: {reason(error)}; "
        "change options or seed"
    )


if __name__ == "__main__":
    main()
