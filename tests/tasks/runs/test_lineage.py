"""Pairs and review items of earlier runs of a chain: referred to, not copied."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from configs.errors import ConfigError
from configs.records import Policy, RoundState
from tasks.runs import facts
from tasks.runs.follow_on import follow_on
from tasks.runs.lineage import pair_files, refuse_lost, review_files
from tasks.runs.run_file import create_run, read_run, write_run
from tasks.runs.workspace import round_folder, run_folder
from tests.tasks.stage_kit import tiny

GIVEN = Policy(path="models/tiny", id="given", round=0)


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def finish(root: Path, name: str, *, rounds: int = 1) -> None:
    """Finished rounds with a line in each file of pairs and review items: `name 0`, `name 1 people`, ..."""
    file, folder = read_run(root, name), run_folder(root, name)
    given = file.given_policy or GIVEN
    write_run(root, file.model_copy(update={"given_policy": given, "initial_policy": given}))
    for index in range(rounds + 1):
        state = RoundState(round=index, policy=given, champion=given, initial_policy=given, reward_models={})
        done = facts.RoundFile(round=index, state=state, ended_ms=1, metrics={}, aliases=[])
        facts.save(round_folder(folder, index) / facts.ROUND_FILE, done)
        put(round_folder(folder, index) / "regenerate" / "pairs.jsonl", f"{name} {index}\n")
        put(round_folder(folder, index) / "regenerate" / "review.jsonl", f"{name} {index} asked\n")
    put(round_folder(folder, 1) / "labels" / "pairs.jsonl", f"{name} 1 people\n")


def lines(files: list[Path]) -> list[str]:
    return [line for path in files for line in path.read_text().splitlines()]


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """`tiny`, `tiny-0002` and the new `tiny-0003`."""
    create_run(tmp_path, tiny())
    finish(tmp_path, "tiny")
    for predecessor in ("tiny", "tiny-0002"):
        finish(tmp_path, follow_on(tmp_path, tiny(), predecessor).name)
    return tmp_path


OF_TWO = [f"{name} {rest}" for name in ("tiny", "tiny-0002") for rest in ("0", "1 people", "1")]


def test_pairs_of_all_runs_come_oldest_first_and_none_is_copied(chain: Path) -> None:
    third = run_folder(chain, "tiny-0003")
    assert lines(pair_files(third, before=0)) == OF_TWO
    assert lines(pair_files(third, before=1)) == [*OF_TWO, "tiny-0003 0", "tiny-0003 1 people"]
    asked = [f"{name} {index} asked" for name in ("tiny", "tiny-0002") for index in (0, 1)]
    assert lines(review_files(third, before=1)) == [*asked, "tiny-0003 0 asked"]
    assert not list(third.glob("*.jsonl"))
    assert not list(run_folder(chain, "tiny-0002").glob("*.jsonl"))


def test_what_run_json_holds_of_the_runs_before_does_not_grow(chain: Path) -> None:
    second, third = (read_run(chain, name).inherited for name in ("tiny-0002", "tiny-0003"))
    assert second is not None
    assert third is not None
    assert [file.path for file in third.pairs] == [file.path for file in second.pairs]
    assert len(third.pairs) == 3


def test_rounds_that_the_predecessor_adds_later_are_not_inherited(chain: Path) -> None:
    finish(chain, "tiny-0002", rounds=3)
    put(round_folder(run_folder(chain, "tiny-0002"), 2) / "labels" / "pairs.jsonl", "late\n")
    assert lines(pair_files(run_folder(chain, "tiny-0003"), before=0)) == OF_TWO


def test_copies_of_a_run_of_an_older_version_are_read_and_followed(chain: Path) -> None:
    second = read_run(chain, "tiny-0002")
    write_run(chain, second.model_copy(update={"inherited": None}))
    put(run_folder(chain, "tiny-0002") / "inherited_pairs.jsonl", "copied\n")
    put(run_folder(chain, "tiny-0002") / "inherited_review.jsonl", "copied asked\n")
    shutil.rmtree(run_folder(chain, "tiny"))  # nothing of it is needed
    assert lines(pair_files(run_folder(chain, "tiny-0002"), before=1)) == [
        "copied",
        "tiny-0002 0",
        "tiny-0002 1 people",
    ]
    assert lines(pair_files(run_folder(chain, "tiny-0003"), before=0)) == ["copied", *OF_TWO[3:]]
    assert lines(review_files(run_folder(chain, "tiny-0003"), before=0))[0] == "copied asked"
    fourth = follow_on(chain, tiny(), "tiny-0003")
    assert lines(pair_files(run_folder(chain, fourth.name), before=0))[0] == "copied"


@pytest.mark.parametrize("gone", ["tiny", "tiny-0002", "tiny/round_001/regenerate/pairs.jsonl"])
def test_a_missing_predecessor_is_named_with_the_remedy(chain: Path, gone: str) -> None:
    path = chain / "runs" / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(ConfigError, match=rf"predecessor '{gone.partition('/')[0]}'.* is gone; restore it, or start"):
        refuse_lost(run_folder(chain, "tiny-0003"))
    with pytest.raises(ConfigError, match="is gone; restore it"):
        follow_on(chain, tiny(), "tiny-0003")


def test_pairs_that_have_changed_since_are_refused(chain: Path) -> None:
    put(round_folder(run_folder(chain, "tiny"), 1) / "regenerate" / "pairs.jsonl", "other pairs\n")
    with pytest.raises(
        ConfigError, match=r"pairs.jsonl has changed since run 'tiny-0002' inherited it from run 'tiny'"
    ):
        pair_files(run_folder(chain, "tiny-0003"), before=0)
