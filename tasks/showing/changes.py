"""Compares two policies' greedy responses, problem by problem: what was learned and what was unlearned."""

from __future__ import annotations

from dataclasses import dataclass, field

from tasks.runs.run_records import RoundRecords, RunRecords
from tasks.runs.stage_files import Row


@dataclass(frozen=True)
class Changes:
    """Keys of a split's problems by whether they were right before and after, in the split's order.

    Problems on which one of the two has no verdict are in none.
    """

    before: RoundRecords
    after: RoundRecords
    split: str
    learned: list[str] = field(default_factory=list)
    """wrong before, right after"""
    unlearned: list[str] = field(default_factory=list)
    """right before, wrong after"""
    right: list[str] = field(default_factory=list)
    """right both times"""
    wrong: list[str] = field(default_factory=list)
    """wrong both times"""


def changes(before: RoundRecords, after: RoundRecords, split: str) -> Changes:
    """What became of the problems of a split between the policies of two rounds."""
    found = Changes(before, after, split)
    lists = {
        (False, True): found.learned,
        (True, False): found.unlearned,
        (True, True): found.right,
        (False, False): found.wrong,
    }
    old, new = verdicts(before, split), verdicts(after, split)
    for key in old:
        if key in new:
            lists[old[key], new[key]].append(key)
    return found


def verdicts(record: RoundRecords, split: str) -> dict[str, bool]:
    """{problem key: whether the greedy response was right}, in the order of the file."""
    return {row["problem_key"]: bool(row[KEY]) for row in record.results if row["split"] == split and _is_known(row)}


KEY = "greedy_accuracy"


def _is_known(row: Row) -> bool:
    return row.get(KEY) is not None


def compared_rounds(records: RunRecords) -> list[tuple[RoundRecords, RoundRecords]]:
    """(champion before, challenger) of each measured round, and last (round 0, champion) where that is no such pair."""
    pairs = [
        (before, record)
        for record in records.rounds
        if record.index > 0 and record.results and (before := records.champion_before(record.index)) is not None
    ]
    ends = (records.baseline, records.champion)
    if ends[0] is not None and ends[1] is not None and ends[0] is not ends[1]:
        indices = {(before.index, after.index) for before, after in pairs}
        if (ends[0].index, ends[1].index) not in indices:
            pairs.append((ends[0], ends[1]))
    return pairs
