"""Takes back a promotion that was wrong: the champion before it is champion again.

Nothing is deleted, so a later rollback may go forward again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from configs.disk.files import write_jsonl
from configs.errors import ConfigError
from tasks.runs.champions import champion_of_round, champions
from tasks.runs.cleaned import refuse_cleaned
from tasks.runs.facts import ROLLBACKS, Rollback, rollbacks
from tasks.runs.follow_on import runs_of_chain
from tasks.runs.history import closed_round, last_finished_round
from tasks.runs.run_file import read_run
from tasks.runs.workspace import Champion, run_folder, write_champion


def roll_back(root: Path, name: str, *, to_round: int | None, reason: str) -> tuple[Champion, Champion, list[str]]:
    """Make the champion before the run's own champion again, or the one of its round `to_round`.

    Writes rollbacks.jsonl in the folders of the run and of all later runs of its chain, and `runs/champion.json`. The caller
    holds the workspace lock. A call that was killed is made good by the same call.

    Returns:
        the champion that was taken back, the one that stands now, and the names of the runs that are touched.

    Raises:
        ConfigError: there is no such champion to go back to, or it was cleaned away.
    """
    names = [file.name for file in runs_of_chain(root, read_run(root, name).name)]
    position = names.index(name)
    standing, of_run = champions(root, names), champions(root, names[: position + 1])
    if not of_run:
        raise ConfigError(
            f"run {name!r} has finished no round, so nothing was promoted; there is nothing to go back from"
        )
    to = _before(name, of_run) if to_round is None else _once_champion(root, name, to_round)
    if to.policy_id == standing[-1].policy_id:
        raise ConfigError(
            f"round {to.round} of run {to.run!r} is champion already; name another round by --to, or another run"
        )
    refuse_cleaned(Path(to.path))
    if not any(Path(to.path).glob("*.safetensors")):
        raise ConfigError(
            f"the weights of round {to.round} of run {to.run!r} are gone from {to.path}; restore them first"
        )
    touched = names[position:]
    for run in touched[:-1]:
        _note(root, run, name, standing[-1], to, reason)
    write_champion(root, to)
    _note(root, touched[-1], name, standing[-1], to, reason)  # last, since a second call looks here
    return standing[-1], to, touched


def _before(name: str, line: Sequence[Champion]) -> Champion:
    if len(line) == 1:
        raise ConfigError(
            f"the champion of run {name!r} is the policy that its chain started from; there is none before it"
        )
    return line[-2]


def _once_champion(root: Path, name: str, round_index: int) -> Champion:
    """The policy of that round, which must have been champion once."""
    folder, were = run_folder(root, name), list[bool]()
    while (closed := closed_round(folder, len(were))) is not None:
        were.append(closed.state.champion.id == closed.state.policy.id or len(were) == 0)
    if round_index not in range(len(were)) or not were[round_index]:
        known = ", ".join(str(index) for index, was in enumerate(were) if was)
        raise ConfigError(f"--to {round_index} was never champion of run {name!r}; its rounds that were: {known}")
    return champion_of_round(root, name, round_index)


def _note(root: Path, run: str, named: str, back_from: Champion, to: Champion, reason: str) -> None:
    folder = run_folder(root, run)
    last, before = last_finished_round(folder), rollbacks(folder)
    back = Rollback(
        at_ms=int(time.time() * 1000),
        run=named,
        back_from=back_from.policy_id,
        to_run=to.run,
        to_round=to.round,
        to_policy=to.policy_id,
        after_round=None if last is None else last.round,
        reason=reason,
    )
    if not before or before[-1].model_copy(update={"at_ms": back.at_ms}) != back:
        write_jsonl(folder / ROLLBACKS, [*before, back])


def ended_by_rollback(run_dir: Path) -> Rollback | None:
    """The rollback that went back past the policy that a run started from, so that the run cannot go on; None without."""
    back = next(reversed(rollbacks(run_dir)), None)
    return back if back is not None and back.to_run != run_dir.name else None


def refuse_ended(run_dir: Path) -> None:
    """Check that the run may go on.

    Raises:
        ConfigError: a rollback went back past the policy that it started from.
    """
    if (back := ended_by_rollback(run_dir)) is not None:
        raise ConfigError(
            f"run {run_dir.name!r} was {back}; it cannot go on from a policy that it did not start from. "
            "The next follow-on of the schedule does, or start a run of its own with --run NEWNAME"
        )
