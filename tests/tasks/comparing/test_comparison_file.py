"""The file of a comparison: what stays when it goes on, and whose folders it takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.disk.files import write_json
from configs.errors import ConfigError
from tasks.comparing import comparison_file
from tasks.comparing.comparison_file import FILE, comparison_folder, open_comparison
from tests.tasks.comparing.made_up import comparison


def test_id_and_day_stay_when_seeds_are_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The later call is four days later, and chat templates go on getting the first day."""
    monkeypatch.setattr(comparison_file.time, "time", lambda: 1_772_366_400.0)
    first = open_comparison(tmp_path, comparison(seeds=[0]))
    monkeypatch.setattr(comparison_file.time, "time", lambda: 1_772_366_400.0 + 4 * 86_400)
    later = open_comparison(tmp_path, comparison(seeds=[0, 1]))
    assert (later.uid, later.date, later.created_ms) == (first.uid, first.date, first.created_ms)
    assert later.comparison.compare.seeds == [0, 1]
    assert {member.config.run.date for member in later.comparison.members(later.date)} == {first.date}


def test_two_comparisons_have_ids_of_their_own(tmp_path: Path) -> None:
    other = comparison().model_copy(update={"name": "other"})
    assert open_comparison(tmp_path, comparison()).uid != open_comparison(tmp_path, other).uid


def test_a_folder_of_a_run_is_not_taken(tmp_path: Path) -> None:
    write_json(comparison_folder(tmp_path, "made-up") / "run.json", {})
    with pytest.raises(ConfigError, match=r"compare-made-up is the folder of a run; give this comparison another name"):
        open_comparison(tmp_path, comparison())


def test_a_folder_of_another_comparison_is_not_taken_for_a_run(tmp_path: Path) -> None:
    write_json(tmp_path / "runs" / "made-up-rloo-s1" / FILE, {})
    with pytest.raises(ConfigError, match=r"made-up-rloo-s1 is the folder of another comparison"):
        open_comparison(tmp_path, comparison())


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    open_comparison(tmp_path, comparison())
    (comparison_folder(tmp_path, "made-up") / FILE).write_text("{")
    with pytest.raises(ConfigError, match=r"compare\.json does not fit this version"):
        open_comparison(tmp_path, comparison())
