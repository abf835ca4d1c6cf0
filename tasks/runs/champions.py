"""The line of champions of a chain: the policy that its first run started from, then each that was promoted.

A rollback cuts the line after an earlier one, or goes forward again to one that was cut off.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tasks.runs.facts import Rollback, rollbacks
from tasks.runs.history import closed_round, policy_of
from tasks.runs.workspace import Champion, run_folder


def champions(root: Path, names: Sequence[str]) -> list[Champion]:
    """The line of champions of the runs of a chain, which are given oldest first, as it stands after rollbacks."""
    line: list[Champion] = []
    for name in names:
        folder, round_index = run_folder(root, name), 0
        backs = rollbacks(folder)
        while (closed := closed_round(folder, round_index)) is not None:
            if closed.state.champion.id == closed.state.policy.id:
                _extend(line, champion_of_round(root, name, round_index))
            _go_back(root, line, [back for back in backs if (back.after_round or 0) == round_index])
            round_index += 1
        if round_index == 0:
            _go_back(root, line, backs)
    return line


def champion_of_round(root: Path, name: str, round_index: int) -> Champion:
    """The policy of a finished round as a champion; round 0 is the policy that the run started from."""
    policy = policy_of(run_folder(root, name), round_index)
    return Champion(run=name, round=round_index, policy_id=policy.id, path=policy.path)


def _extend(line: list[Champion], champion: Champion) -> None:
    """Add a champion, unless it is the last one already: a follow-on starts from that."""
    if not line or line[-1].policy_id != champion.policy_id:
        line.append(champion)


def _go_back(root: Path, line: list[Champion], backs: list[Rollback]) -> None:
    for back in backs:
        ids = [champion.policy_id for champion in line]
        if back.to_policy in ids:
            del line[ids.index(back.to_policy) + 1 :]
        else:
            line.append(champion_of_round(root, back.to_run, back.to_round))
