"""Reads what earlier rounds left on disk: accepted reward models, finished rounds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from configs.disk.files import read_manifest
from configs.paths import StoredPath
from configs.records import Policy, Record
from tasks.runs.facts import ROUND_FILE, RoundFile, load, rollbacks
from tasks.runs.stage_files import CURRICULUM, reward_model_report
from tasks.runs.workspace import by_hand_folder, reward_model_folder, round_folder

INHERITED_CURRICULUM = "inherited_curriculum.json"


class ModelRef(Record):
    """A saved model: the content hash of its weights, and where it is."""

    id: str
    path: StoredPath


def accepted_model(folder: Path) -> ModelRef | None:
    """The reward model of a stage if the stage is finished and the model was accepted, otherwise None."""
    report = reward_model_report(folder) if read_manifest(folder) is not None else None
    return ModelRef(id=report.id, path=report.path) if report and report.accepted else None


def last_accepted(
    run_dir: Path, name: str, *, before: int, inherited: Mapping[str, ModelRef], leave_out: Path | None = None
) -> ModelRef | None:
    """The newest accepted reward model of the rounds before `before`, otherwise the inherited one, otherwise None.

    One that was retrained by hand is newer than the one that its round trained.
    """
    for round_index in range(before - 1, -1, -1):
        for folder in (by_hand_folder(run_dir, round_index, name), reward_model_folder(run_dir, round_index, name)):
            if folder != leave_out and (model := accepted_model(folder)) is not None:
                return model
    return inherited.get(name)


def last_accepted_models(
    run_dir: Path, names: Iterable[str], *, before: int, inherited: Mapping[str, ModelRef]
) -> dict[str, ModelRef]:
    """{name: last accepted reward model} before a round; a name without one is absent."""
    models = {name: last_accepted(run_dir, name, before=before, inherited=inherited) for name in names}
    return {name: model for name, model in models.items() if model is not None}


def left_out_file(pairs_file: Path) -> Path:
    """Beside a file of pairs, {reward model: {reason: rows of its preference file that made none of them}}."""
    return pairs_file.with_suffix(".left_out.json")


def left_out_of_file(pairs_file: Path) -> dict[str, dict[str, int]]:
    """What that file says; empty where there is none."""
    path = left_out_file(pairs_file)
    return json.loads(path.read_bytes()) if path.exists() else {}


def closed_round(run_dir: Path, round_index: int) -> RoundFile | None:
    """The round's `round.json` as it was closed, or None if the round is not finished."""
    return load(round_folder(run_dir, round_index) / ROUND_FILE, RoundFile)


def finished_round(run_dir: Path, round_index: int) -> RoundFile | None:
    """The round's `round.json`, or None if the round is not finished; its champion is the one that stands after rollbacks."""
    closed = closed_round(run_dir, round_index)
    if closed is None or (champion := rolled_back_champion(run_dir, round_index)) is None:
        return closed
    return closed.model_copy(update={"state": closed.state.model_copy(update={"champion": champion})})


def rolled_back_champion(run_dir: Path, round_index: int) -> Policy | None:
    """The policy that a rollback made champion after that round, or None if there was none.

    Its round is 0 if another run made it, or the given policy.
    """
    backs = [back for back in rollbacks(run_dir) if (back.after_round or 0) == round_index]
    if not backs:
        return None
    to = backs[-1]
    policy = policy_of(run_dir.with_name(to.to_run), to.to_round)
    return policy.model_copy(update={"round": to.to_round if to.to_run == run_dir.name else 0})


def policy_of(run_dir: Path, round_index: int) -> Policy:
    """The policy of a finished round (round 0: the given one), with its current path."""
    closed, start = closed_round(run_dir, round_index), closed_round(run_dir, 0)
    assert closed is not None, f"{run_dir} has finished round {round_index}"
    assert start is not None, f"{run_dir} has finished round 0"
    return round_policy(run_dir, start.state.policy, round_index, closed.state.policy.id)


def last_champion(run_dir: Path) -> Policy | None:
    """The champion after the last finished round, with its current path; None before the first."""
    last = last_finished_round(run_dir)
    if last is None:
        return None
    champion, given = last.state.champion, policy_of(run_dir, 0)
    if is_of_another_run(champion, given):
        return champion
    return round_policy(run_dir, given, champion.round, champion.id)


def is_of_another_run(champion: Policy, given: Policy) -> bool:
    """Whether a rollback went back past the policy that the run started from."""
    return champion.round == 0 and champion.id != given.id


def last_finished_round(run_dir: Path) -> RoundFile | None:
    """The last round such that it and all rounds before it are finished; None if round 0 is not."""
    last, round_index = None, 0
    while (round_file := finished_round(run_dir, round_index)) is not None:
        last, round_index = round_file, round_index + 1
    return last


def curriculum_before(
    run_dir: Path, round_index: int, *, inherited: dict[str, Any] | None = None
) -> dict[str, Any] | None:
    """Epoch and pass rates that the training of a round starts from: those at the end of the training before; in the first
    round the predecessor's, which older versions wrote into `run.json` (`inherited`); None before the first training."""
    if round_index > 1:
        path, otherwise = round_folder(run_dir, round_index - 1) / "policy" / CURRICULUM, None
    else:
        path, otherwise = run_dir / INHERITED_CURRICULUM, inherited
    return json.loads(path.read_bytes()) if path.exists() else otherwise


def round_policy(run_dir: Path, given: Policy, round_index: int, policy_id: str) -> Policy:
    """The policy that a round of this run trained (round 0: the given one), with its current path."""
    if round_index == 0:
        return given
    return Policy(path=str(round_folder(run_dir, round_index) / "policy" / "model"), id=policy_id, round=round_index)
