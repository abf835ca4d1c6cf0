"""What earlier rounds left on disk: accepted reward models, pairs, finished rounds."""

from __future__ import annotations

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
    """The reward model of a finished stage, where it was accepted."""
    report = reward_model_report(folder) if read_manifest(folder) is not None else None
    return ModelRef(id=report.id, path=report.path) if report and report.accepted else None


def last_accepted(
    run_dir: Path, name: str, *, before: int, inherited: Mapping[str, ModelRef], leave_out: Path | None = None
) -> ModelRef | None:
    """The newest accepted reward model of the rounds before `before`; one made by hand follows its round's own."""
    for round_index in range(before - 1, -1, -1):
        for folder in (by_hand_folder(run_dir, round_index, name), reward_model_folder(run_dir, round_index, name)):
            if folder != leave_out and (model := accepted_model(folder)) is not None:
                return model
    return inherited.get(name)


def last_accepted_models(
    run_dir: Path, names: Iterable[str], *, before: int, inherited: Mapping[str, ModelRef]
) -> dict[str, ModelRef]:
    """The last accepted reward model of each name before a round; a name without one is absent."""
    found = {name: last_accepted(run_dir, name, before=before, inherited=inherited) for name in names}
    return {name: model for name, model in found.items() if model is not None}


def pair_files(run_dir: Path, *, before: int) -> list[Path]:
    """Files of preference pairs from rounds before `before`, and from runs before this one, oldest first.

    What people said of a round's samples stands in the next round's folder, beside the reward model that learns from it.
    """
    files = [run_dir / INHERITED_PAIRS]
    for round_index in range(before):
        files += [
            round_folder(run_dir, round_index) / "regenerate" / PAIRS,
            round_folder(run_dir, round_index + 1) / "labels" / PAIRS,
        ]
    return [path for path in files if path.exists()]


def review_files(run_dir: Path, *, before: int) -> list[Path]:
    """Files of what people were asked about reward models' pairs in rounds before `before`, and in runs before this one."""
    asked = [round_folder(run_dir, round_index) / "regenerate" / REVIEW for round_index in range(before)]
    return [path for path in [run_dir / INHERITED_REVIEW, *asked] if path.exists()]


def finished_round(run_dir: Path, round_index: int) -> RoundFile | None:
    """What `finish_round` wrote, or None."""
    return load(round_folder(run_dir, round_index) / ROUND_FILE, RoundFile)


def last_finished_round(run_dir: Path) -> RoundFile | None:
    """The highest round that is finished, all before it being finished too."""
    last, round_index = None, 0
    while (found := finished_round(run_dir, round_index)) is not None:
        last, round_index = found, round_index + 1
    return last


def rounds_wanted(run_dir: Path, rounds: int) -> int:
    """The rounds of a run so far: `rounds`, and one more after each last one whose training was ended by a watch rule with
    `extra_rounds` left."""
    wanted = rounds
    while _extra_rounds(round_folder(run_dir, wanted) / "policy") > wanted - rounds:
        wanted += 1
    return wanted


def _extra_rounds(policy_dir: Path) -> int:
    result = train_result(policy_dir) if read_manifest(policy_dir) is not None else None
    return result.extra_rounds if result is not None else 0


def round_policy(run_dir: Path, given: Policy, round_index: int, policy_id: str) -> Policy:
    """A policy that a round of this run trained, or the given one, at its place on disk now."""
    if round_index == 0:
        return given
    return Policy(path=str(round_folder(run_dir, round_index) / "policy" / "model"), id=policy_id, round=round_index)
