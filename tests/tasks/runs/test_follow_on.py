"""Chains of runs: what belongs together, and what follow-ons are called."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from configs.errors import ConfigError
from tasks.runs.follow_on import chain_name, follow_on_name, runs_of_chain
from tasks.runs.run_file import create_run, read_run, run_names
from tasks.runs.workspace import run_folder
from tests.tasks.stage_kit import tiny


def create(root: Path, **predecessors: str | None) -> None:
    """Runs with their predecessors, in this order; `_` stands for `-` in names."""
    for name, predecessor in predecessors.items():
        create_run(root, tiny(f"run.name={name.replace('_', '-')}"), predecessor=predecessor)


def members(root: Path, name: str) -> list[str]:
    return [file.name for file in runs_of_chain(root, name)]


def test_names_that_end_in_four_digits_are_no_chain(tmp_path: Path) -> None:
    """They were: the interrupted run of one was taken up with the settings of the other."""
    create(tmp_path, bench_0100=None, bench_0200=None, bench=None)
    assert members(tmp_path, "bench-0200") == ["bench-0200"]
    assert members(tmp_path, "bench") == ["bench"]
    assert chain_name(tmp_path, "bench-0200") == "bench-0200"
    assert follow_on_name(tmp_path, "bench-0200") == "bench-0200-0002"


def test_a_chain_is_joined_by_predecessors_whatever_the_names(tmp_path: Path) -> None:
    create(tmp_path, tiny=None, other=None, tiny_0002="tiny", elsewhere="tiny-0002")
    for name in ("tiny", "tiny-0002", "elsewhere"):
        assert chain_name(tmp_path, name) == "tiny"
        assert members(tmp_path, name) == ["tiny", "tiny-0002", "elsewhere"]
    assert members(tmp_path, "not-started") == []
    assert chain_name(tmp_path, "not-started") == "not-started"


def test_names_of_follow_ons_count_on_and_pass_over_other_runs(tmp_path: Path) -> None:
    create(tmp_path, tiny=None)
    assert follow_on_name(tmp_path, "tiny") == "tiny-0002"
    create(tmp_path, tiny_0002=None, tiny_0004="tiny")  # the first has nothing to do with tiny
    assert follow_on_name(tmp_path, "tiny") == "tiny-0005"
    create(tmp_path, tiny_0005=None)
    assert follow_on_name(tmp_path, "tiny-0004") == "tiny-0006"


def test_the_ten_thousandth_follow_on_is_of_the_chain(tmp_path: Path) -> None:
    create(tmp_path, tiny=None, tiny_9999="tiny", tiny_10000="tiny-9999")
    assert follow_on_name(tmp_path, "tiny-10000") == "tiny-10001"


def test_a_name_without_room_for_its_number_is_refused(tmp_path: Path) -> None:
    create(tmp_path, **{"a" * 60: None})
    with pytest.raises(ConfigError, match="longer than the 64 characters of a name"):
        follow_on_name(tmp_path, "a" * 60)


def test_a_chain_keeps_its_name_when_its_first_run_is_gone(tmp_path: Path) -> None:
    create(tmp_path, tiny=None, tiny_0002="tiny", tiny_0003="tiny-0002")
    shutil.rmtree(run_folder(tmp_path, "tiny"))
    assert chain_name(tmp_path, "tiny-0003") == "tiny"
    assert members(tmp_path, "tiny") == members(tmp_path, "tiny-0002") == ["tiny-0002", "tiny-0003"]
    assert follow_on_name(tmp_path, "tiny-0003") == "tiny-0004"


def test_predecessors_that_name_each_other_end(tmp_path: Path) -> None:
    create(tmp_path, tiny="tiny-0002", tiny_0002="tiny")
    assert chain_name(tmp_path, "tiny") in {"tiny", "tiny-0002"}


def test_a_copied_folder_is_no_run_and_is_named_where_it_is_asked_for(tmp_path: Path) -> None:
    create(tmp_path, tiny=None)
    shutil.copytree(run_folder(tmp_path, "tiny"), run_folder(tmp_path, "tiny.bak"))
    assert run_names(tmp_path) == ["tiny"]
    with pytest.raises(ConfigError, match="is of run 'tiny': the folder was copied or renamed"):
        read_run(tmp_path, "tiny.bak")
