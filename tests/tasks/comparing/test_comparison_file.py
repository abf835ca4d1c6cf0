"""The file of a comparison: what stays when it goes on, and whose folders it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from configs.disk.files import Manifest, write_json, write_manifest
from configs.errors import ConfigError
from configs.schema.comparing.compare import Comparison
from grpo_train.problems.sources import source_digests
from tasks.comparing import comparison_file
from tasks.comparing.comparison_file import FILE, comparison_folder, open_comparison
from tasks.runs.run_file import open_run
from tests.tasks.comparing.made_up import BASE, METHODS, comparison


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
    with pytest.raises(ConfigError, match=r"compare\.json is broken, or of another version; restore it"):
        open_comparison(tmp_path, comparison())


def with_data(root: Path, *seeds: int, **changes: Any) -> Comparison:
    """A comparison on a file of problems."""
    base = BASE | {"problems": {"sources": [{"kind": "file", "path": str(root / "sums.jsonl")}]}} | changes
    compare = {"methods": METHODS, "seeds": list(seeds), "budget": {"generated_tokens": 1000}}
    return Comparison.model_validate({"name": "made-up", "base": base, "compare": compare})


def started(root: Path, comparison: Comparison) -> None:
    """Begin the comparison's first member, up to its problems."""
    file = open_comparison(root, comparison)
    member = next(iter(comparison.members(file.date)))
    open_run(root, member.config)
    write_manifest(
        root / "runs" / member.name / "problems",
        Manifest(
            stage="problems", round=0, inputs={"policy": "x", **source_digests(member.config.problems.sources)}, config_digest="x",
            outputs={}, seed=0, versions={}, started_ms=0, ended_ms=1,
        ),
    )  # fmt: skip


def test_data_that_changed_are_refused_before_another_seed_is_trained_on_them(tmp_path: Path) -> None:
    """They were compared on the problems that the old and the new file share, without a word."""
    (tmp_path / "sums.jsonl").write_text('{"question": "1+1", "answer": "2"}\n')
    started(tmp_path, with_data(tmp_path, 0))
    (tmp_path / "sums.jsonl").write_text('{"question": "1+2", "answer": "3"}\n')
    with pytest.raises(
        ConfigError, match=r"sums\.jsonl has changed since run 'made-up-grpo-s0' .*; restore it, or compare anew"
    ):
        open_comparison(tmp_path, with_data(tmp_path, 0, 1))
    (tmp_path / "sums.jsonl").write_text('{"question": "1+1", "answer": "2"}\n')
    assert open_comparison(tmp_path, with_data(tmp_path, 0, 1)).comparison.compare.seeds == [0, 1]


def test_a_refused_call_leaves_the_file_of_the_comparison_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "sums.jsonl").write_text('{"question": "1+1", "answer": "2"}\n')
    started(tmp_path, with_data(tmp_path, 0))
    path = comparison_folder(tmp_path, "made-up") / FILE
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"grpo_config\.group_size is 4, was 8"):
        open_comparison(tmp_path, with_data(tmp_path, 0, grpo_config=BASE["grpo_config"] | {"group_size": 4}))
    assert path.read_bytes() == before
