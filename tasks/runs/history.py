"""Reads what earlier rounds left on disk: accepted reward models, pairs, finished rounds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from configs.disk.files import read_manifest
from configs.records import Policy, Record
from tasks.runs.facts import ROUND_FILE, RoundFile, load
from tasks.runs.stage_files import reward_model_report, train_result
from tasks.runs.workspace import by_hand_folder, reward_model_folder, round_folder

PAIRS, REVIEW = "pairs.jsonl", "review.jsonl"
INHERITED_PAIRS = "inherited_pairs.jsonl"
INHERITED_REVIEW = "inherited_review.jsonl"


class ModelRef(Record):
    """A saved model: the content hash of its weights, and where it is."""

    id: str
    path: str


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


def pair_files(run_dir: Path, *, before: int) -> list[Path]:
    """Files of preference pairs from rounds before `before` and from earlier runs of the chain, oldest first.

    People's labels of a round's samples are in the next round's folder, beside the reward model that learns from them.
    """
    files = [run_dir / INHERITED_PAIRS]
    for round_index in range(before):
        files += [
            round_folder(run_dir, round_index) / "regenerate" / PAIRS,
            round_folder(run_dir, round_index + 1) / "labels" / PAIRS,
        ]
    return [path for path in files if path.exists()]


def left_out_file(pairs_file: Path) -> Path:
    """Beside a file of pairs, {reward model: {reason: rows of its preference file that made none of them}}."""
    return pairs_file.with_suffix(".left_out.json")


def left_out_of_file(pairs_file: Path) -> dict[str, dict[str, int]]:
    """What that file says; empty where there is none."""
    path = left_out_file(pairs_file)
    return json.loads(path.read_bytes()) if path.exists() else {}


def review_files(run_dir: Path, *, before: int) -> list[Path]:
    """Files of review items of reward models from rounds before `before` and from earlier runs, oldest first."""
    asked = [round_folder(run_dir, round_index) / "regenerate" / REVIEW for round_index in range(before)]
    return [path for path in [run_dir / INHERITED_REVIEW, *asked] if path.exists()]


def finished_round(run_dir: Path, round_index: int) -> RoundFile | None:
    """The round's `round.json`, or None if the round is not finished."""
    return load(round_folder(run_dir, round_index) / ROUND_FILE, RoundFile)


def last_finished_round(run_dir: Path) -> RoundFile | None:
    """The last round such that it and all rounds before it are finished; None if round 0 is not."""
    last, round_index = None, 0
    while (round_file := finished_round(run_dir, round_index)) is not None:
        last, round_index = round_file, round_index + 1
    return last


def rounds_wanted(run_dir: Path, rounds: int) -> int:
    """The number of rounds after round 0 that the run has so far.

    That is `rounds`, and one more whenever a watch rule with `extra_rounds` left ended the training of the last one.
    """
    wanted = rounds
    while _extra_rounds(round_folder(run_dir, wanted) / "policy") > wanted - rounds:
        wanted += 1
    return wanted


def _extra_rounds(policy_dir: Path) -> int:
    result = train_result(policy_dir) if read_manifest(policy_dir) is not None else None
    return result.extra_rounds if result is not None else 0


def round_policy(run_dir: Path, given: Policy, round_index: int, policy_id: str) -> Policy:
    """The policy that a round of this run trained (round 0: the given one), with its current path."""
    if round_index == 0:
        return given
    return Policy(path=str(round_folder(run_dir, round_index) / "policy" / "model"), id=policy_id, round=round_index)
