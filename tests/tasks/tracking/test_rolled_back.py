"""What MLflow is told of rollbacks and of cleaned stages."""

from __future__ import annotations

from pathlib import Path

from tasks.running.cleaning import carry_out, plan_cleaning
from tasks.runs.facts import ModelFact, Outcome, StageFacts, save
from tasks.runs.rollbacks import roll_back
from tasks.runs.workspace import round_folder, run_folder
from tasks.tracking.aliases import aliases_after, events_of
from tasks.tracking.outbox import TRACKING, StageTracking, unsent_files
from tests.tasks.a_chain import id_of, write_run_of


def track(root: Path, name: str, round_index: int, *, done: bool = True) -> StageTracking:
    """The record of a finished training, whose policy is champion."""
    facts = StageFacts(key=f"round_{round_index:03d}/policy", started_ms=round_index, tags={}, params={}, datasets=[])
    tags = {"regroup.policy_id": id_of(f"{name} {round_index}")}
    model = ModelFact(name="tiny-policy", folder="model", alias="champion", tags=tags)
    record = StageTracking(facts=facts, status="FINISHED", outcome=Outcome(model=model), done=done)
    save(round_folder(run_folder(root, name), round_index) / "policy" / TRACKING, record)
    return record


def aliases(root: Path, *names: str) -> dict[str, str | None]:
    return aliases_after(event for name in names for event in events_of(run_folder(root, name)))["tiny-policy"]


def test_champion_goes_back_and_previous_is_the_one_that_was_taken_back(tmp_path: Path) -> None:
    write_run_of(tmp_path, True, True)
    for round_index in (1, 2):
        track(tmp_path, "tiny", round_index)
    roll_back(tmp_path, "tiny", to_round=None, reason="")
    now = aliases(tmp_path, "tiny")
    assert (now["champion"], now["previous"]) == (id_of("tiny 1"), id_of("tiny 2"))
    roll_back(tmp_path, "tiny", to_round=2, reason="")
    now = aliases(tmp_path, "tiny")
    assert (now["champion"], now["previous"]) == (id_of("tiny 2"), id_of("tiny 1"))


def test_a_run_that_sent_nothing_yet_moves_the_alias_of_its_chain(tmp_path: Path) -> None:
    write_run_of(tmp_path, True, True)
    for round_index in (1, 2):
        track(tmp_path, "tiny", round_index)
    name = write_run_of(tmp_path, True, predecessor="tiny")
    roll_back(tmp_path, name, to_round=None, reason="")
    roll_back(tmp_path, name, to_round=None, reason="")  # past what it started from
    assert aliases(tmp_path, "tiny", name)["champion"] == id_of("tiny 1")


def test_files_that_were_cleaned_away_are_not_sent_again(tmp_path: Path) -> None:
    """Under a new parent run everything is sent again, and a file that is gone stopped all that came after it."""
    write_run_of(tmp_path, True, True, True)
    track(tmp_path, "tiny", 1)
    carry_out(plan_cleaning(tmp_path, keep_rounds=1))
    stage = round_folder(run_folder(tmp_path, "tiny"), 1) / "policy"
    again = track(tmp_path, "tiny", 1, done=False)
    assert [artifact.name for artifact in unsent_files(stage, again)] == ["result.json", "manifest.json"]
