"""Which problems are left out since they repeat or contradict others, what is told of all that are left out, and when it is
too many to be meant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

from configs.errors import ConfigError
from grpo_train.problems.raw_problem import RawProblem
from reward_training.answers.checkers import exact, math_equal

MAX_SHARE = 0.5
"""largest share of a source's problems that may be left out for a reason that the configuration can mend"""

REASONS = {
    "empty": "without a question or an answer",
    "unreadable": "that cannot be read",
    "unmatched": "without the answer in its place or among the options",
    "contradicting": "whose question stands with another answer too",
    "overlong": "with a prompt over max_prompt_length",
}
"""{reason for which problems are left out: how it is told}; those that repeat others, or overlap, are no fault"""
KEPT = {
    "leaking": "questions that end with their own answer",
    "cut": "conversations without what the assistant answers at their end",
    "unfilled": "questions with a column of the template that is null",
    "unwritten": "prompts with a message that the chat template does not write",
}
"""{what is odd about problems that are kept: how it is told}"""


def missing(counts: Mapping[str, int], examples: Mapping[str, str]) -> str:
    """What is left out, and what is left out of problems that are kept, in words; empty where all is as it stands in the data.

    >>> missing({"loaded": 9, "overlong": 2, "unreadable": 1, "cut": 0}, {"unreadable": "a.jsonl line 3: the answer is inf"})
    'left out: 1 that cannot be read (a.jsonl line 3: the answer is inf), 2 with a prompt over max_prompt_length'
    """
    parts = {"left out": REASONS, "kept": KEPT}
    listed = {
        part: [
            f"{counts[reason]:,} {words}" + (f" ({examples[reason]})" if reason in examples else "")
            for reason, words in reasons.items()
            if counts.get(reason)
        ]
        for part, reasons in parts.items()
    }
    return "; ".join(f"{part}: {', '.join(found)}" for part, found in listed.items() if found)


def refuse_most(
    lost: Sequence[RawProblem], asked: Sequence[RawProblem], why: Callable[[Sequence[RawProblem]], str]
) -> None:
    """Refuse what leaves most of the problems of a source out; `why` says of those that are lost what to do.

    Raises:
        ConfigError: more than MAX_SHARE of a source are lost.
    """
    sizes = Counter(problem.source for problem in asked)
    for source, num_lost in Counter(problem.source for problem in lost).items():
        if num_lost > MAX_SHARE * sizes[source]:
            some = [problem for problem in lost if problem.source == source]
            raise ConfigError(f"{source}: {num_lost:,} of {sizes[source]:,} problems are left out: {why(some)}")


# ---- repeated questions ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Distinct:
    """Problems of which no two ask the same, and those that are left out."""

    problems: list[RawProblem]
    duplicates: list[RawProblem]
    """they ask what another one asks, and have its answer"""
    contradicting: list[RawProblem]
    """they ask what another one asks, and have another answer"""


def distinct(problems: Sequence[RawProblem], identity: Callable[[RawProblem], Hashable]) -> Distinct:
    """The first problem of each identity. Where gold answers contradict each other the majority stands, and none where they
    are even."""
    groups: dict[Hashable, list[RawProblem]] = {}
    for problem in problems:
        groups.setdefault(identity(problem), []).append(problem)
    found = Distinct([], [], [])
    for group in groups.values():
        by_gold = _by_gold(group)
        most = max(map(len, by_gold))
        majority, *even = [members for members in by_gold if len(members) == most]
        standing = [] if even else majority
        found.problems.extend(standing[:1])
        found.duplicates.extend(standing[1:])
        found.contradicting.extend(member for members in by_gold if members is not standing for member in members)
    return found


def _by_gold(group: Sequence[RawProblem]) -> list[list[RawProblem]]:
    """The problems of one question, by gold answer."""
    lists: list[list[RawProblem]] = []
    for problem in group:
        same = next((members for members in lists if _agree(members[0], problem)), None)
        if same is None:
            lists.append([problem])
        else:
            same.append(problem)
    return lists


def _agree(one: RawProblem, other: RawProblem) -> bool:
    """Whether a gold answer of the one is one of the other, as texts or as values: 0.5 is 1/2."""
    if one.answer is None or other.answer is None:
        return one.answer is other.answer
    golds = [one.answer, *one.other_answers], [other.answer, *other.other_answers]
    return any(
        left == right or exact(left, right) or bool(math_equal(left, right)) for left in golds[0] for right in golds[1]
    )
