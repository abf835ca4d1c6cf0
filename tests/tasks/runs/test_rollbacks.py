"""A promotion is taken back: what is champion then, and what later rounds and runs start from."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.errors import ConfigError
from flows.schedule import next_run
from flows.summary import run_champion
from tasks.runs.champions import champions
from tasks.runs.facts import rollbacks
from tasks.runs.follow_on import follow_on, runs_of_chain
from tasks.runs.history import finished_round, last_champion
from tasks.runs.rollbacks import ended_by_rollback, refuse_ended, roll_back
from tasks.runs.run_file import read_run, write_run
from tasks.runs.run_records import read_run_records
from tasks.runs.workspace import read_champion, run_folder
from tests.tasks.a_chain import id_of, write_round, write_run_of
from tests.tasks.stage_kit import tiny


def line(root: Path) -> list[tuple[str, int]]:
    names = [file.name for file in runs_of_chain(root, "tiny")]
    return [(champion.run, champion.round) for champion in champions(root, names)]


def champion_of(root: Path) -> tuple[str, int]:
    champion = read_champion(root)
    assert champion is not None
    return champion.run, champion.round


def policy_of_run(root: Path, name: str) -> str:
    return run_champion(read_run_records(run_folder(root, name))).id


def test_the_champion_before_is_champion_again_with_the_reason(tmp_path: Path) -> None:
    write_run_of(tmp_path, True, False, True)
    before, now, touched = roll_back(tmp_path, "tiny", to_round=None, reason="the judge was fooled")
    assert ((before.run, before.round), (now.run, now.round), touched) == (("tiny", 3), ("tiny", 1), ["tiny"])
    assert champion_of(tmp_path) == ("tiny", 1)
    assert policy_of_run(tmp_path, "tiny") == id_of("tiny 1")
    [back] = rollbacks(run_folder(tmp_path, "tiny"))
    assert (back.reason, back.back_from, back.after_round) == ("the judge was fooled", id_of("tiny 3"), 3)
    given = follow_on(tmp_path, tiny(), "tiny").given_policy
    assert given is not None
    assert given.id == id_of("tiny 1")


def test_again_it_goes_further_back_and_by_round_forward_again(tmp_path: Path) -> None:
    write_run_of(tmp_path, True, True)
    for expected in (1, 0):
        roll_back(tmp_path, "tiny", to_round=None, reason="")
        assert champion_of(tmp_path) == ("tiny", expected)
    with pytest.raises(ConfigError, match="none before it"):
        roll_back(tmp_path, "tiny", to_round=None, reason="")
    roll_back(tmp_path, "tiny", to_round=2, reason="it was right")
    assert champion_of(tmp_path) == ("tiny", 2)
    assert policy_of_run(tmp_path, "tiny") == id_of("tiny 2")
    assert len(rollbacks(run_folder(tmp_path, "tiny"))) == 3


@pytest.mark.parametrize(
    ("to_round", "told"),
    [
        (2, "--to 2 was never champion of run 'tiny'; its rounds that were: 0, 1"),
        (7, "--to 7 was"),
        (1, "champion already"),
    ],
)
def test_only_what_was_champion_can_be_again(tmp_path: Path, to_round: int, told: str) -> None:
    write_run_of(tmp_path, True, False)
    with pytest.raises(ConfigError, match=told):
        roll_back(tmp_path, "tiny", to_round=to_round, reason="")
    assert champion_of(tmp_path) == ("tiny", 1)


def test_weights_that_are_gone_are_no_champion(tmp_path: Path) -> None:
    write_run_of(tmp_path, True, True)
    (run_folder(tmp_path, "tiny") / "round_001" / "policy" / "model" / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="the weights of round 1 of run 'tiny' are gone"):
        roll_back(tmp_path, "tiny", to_round=None, reason="")
    assert champion_of(tmp_path) == ("tiny", 2)


def test_a_run_that_is_not_there_or_has_no_round_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run 'tiny'"):
        roll_back(tmp_path, "tiny", to_round=None, reason="")
    next_run(tmp_path, tiny())
    with pytest.raises(ConfigError, match="nothing was promoted"):
        roll_back(tmp_path, "tiny", to_round=None, reason="")


def test_later_rounds_start_from_the_champion_that_is_back(tmp_path: Path) -> None:
    write_run_of(tmp_path, True, True)
    roll_back(tmp_path, "tiny", to_round=None, reason="")
    folder = run_folder(tmp_path, "tiny")
    states = [finished_round(folder, index) for index in range(3)]
    assert [state.state.champion.round for state in states if state] == [0, 1, 1]
    refuse_ended(folder)  # it may go on
    write_round(tmp_path, "tiny", 3, promoted=False)
    assert policy_of_run(tmp_path, "tiny") == id_of("tiny 1")
    write_round(tmp_path, "tiny", 3, promoted=True)
    assert policy_of_run(tmp_path, "tiny") == id_of("tiny 3")


def test_it_goes_back_to_a_champion_of_an_earlier_run(tmp_path: Path) -> None:
    write_run_of(tmp_path, True, True)
    write_run_of(tmp_path, True, predecessor="tiny")
    assert line(tmp_path) == [("tiny", 0), ("tiny", 1), ("tiny", 2), ("tiny-0002", 1)]
    roll_back(tmp_path, "tiny-0002", to_round=None, reason="")
    assert champion_of(tmp_path) == ("tiny", 2)
    roll_back(tmp_path, "tiny-0002", to_round=None, reason="")  # past the policy that it started from
    assert champion_of(tmp_path) == ("tiny", 1)
    assert policy_of_run(tmp_path, "tiny-0002") == id_of("tiny 1")
    assert policy_of_run(tmp_path, "tiny") == id_of("tiny 2")  # nothing was wrong with that run
    assert line(tmp_path) == [("tiny", 0), ("tiny", 1)]
    following = next_run(tmp_path, tiny())
    assert (following.name, following.predecessor) == ("tiny-0003", "tiny-0002")
    assert following.given_policy is not None
    assert following.given_policy.id == id_of("tiny 1")
    with pytest.raises(ConfigError, match="cannot go on from a policy that it did not start from"):
        refuse_ended(run_folder(tmp_path, "tiny-0002"))


def test_the_runs_that_were_built_on_a_wrong_one_are_touched_too(tmp_path: Path) -> None:
    write_run_of(tmp_path, True, True)
    write_run_of(tmp_path, True, predecessor="tiny")
    _, _, touched = roll_back(tmp_path, "tiny", to_round=None, reason="round 2 learnt to cheat")
    assert touched == ["tiny", "tiny-0002"]
    assert champion_of(tmp_path) == ("tiny", 1)
    for name in touched:
        assert policy_of_run(tmp_path, name) == id_of("tiny 1")
        assert "round 2 learnt to cheat" in str(rollbacks(run_folder(tmp_path, name))[-1])
    given = next_run(tmp_path, tiny()).given_policy
    assert given is not None
    assert given.id == id_of("tiny 1")


def test_an_interrupted_run_that_started_from_a_wrong_one_is_not_taken_up(tmp_path: Path) -> None:
    write_run_of(tmp_path, True, True)
    interrupted = follow_on(tmp_path, tiny(), "tiny").name
    roll_back(tmp_path, "tiny", to_round=None, reason="")
    assert ended_by_rollback(run_folder(tmp_path, interrupted)) is not None
    following = next_run(tmp_path, tiny())
    assert (following.name, following.predecessor) == ("tiny-0003", "tiny")
    assert following.given_policy is not None
    assert following.given_policy.id == id_of("tiny 1")
    assert next_run(tmp_path, tiny()).name == "tiny-0003"


def test_a_rollback_of_the_interrupted_run_itself_goes_before_what_it_started_from(tmp_path: Path) -> None:
    write_run_of(tmp_path, True, True)
    interrupted = follow_on(tmp_path, tiny(), "tiny").name
    roll_back(tmp_path, interrupted, to_round=None, reason="")
    given = next_run(tmp_path, tiny()).given_policy
    assert given is not None
    assert given.id == id_of("tiny 1")


def test_a_call_that_was_killed_is_made_good_by_the_same_call(tmp_path: Path) -> None:
    """The newest run's record is written last, and what stands is read from it."""
    write_run_of(tmp_path, True, True)
    write_run_of(tmp_path, True, predecessor="tiny")
    roll_back(tmp_path, "tiny", to_round=None, reason="r")
    (run_folder(tmp_path, "tiny-0002") / "rollbacks.jsonl").unlink()
    roll_back(tmp_path, "tiny", to_round=1, reason="r")
    assert champion_of(tmp_path) == ("tiny", 1)
    assert len(rollbacks(run_folder(tmp_path, "tiny"))) == len(rollbacks(run_folder(tmp_path, "tiny-0002"))) == 1


def test_paths_follow_a_workspace_that_was_moved(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    write_run_of(here, True, True)
    here.rename(there)
    roll_back(there, "tiny", to_round=None, reason="")
    champion = last_champion(run_folder(there, "tiny"))
    assert champion is not None
    assert champion.path == str(there / "runs" / "tiny" / "round_001" / "policy" / "model")
    assert read_champion(there) is not None


def test_a_run_of_an_older_version_knows_no_rollback(tmp_path: Path) -> None:
    write_run_of(tmp_path, True)
    write_run(tmp_path, read_run(tmp_path, "tiny"))
    assert rollbacks(run_folder(tmp_path, "tiny")) == []
    assert line(tmp_path) == [("tiny", 0), ("tiny", 1)]
