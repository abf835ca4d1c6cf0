"""What earlier rounds say about later ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from configs.disk.files import Manifest, write_manifest
from tasks.runs.progress import rounds_wanted


def train(run: Path, round_index: int, **result: int) -> Path:
    """What a finished training leaves of its end."""
    folder = run / f"round_{round_index:03d}" / "policy"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result))
    manifest = Manifest(
        stage="policy",
        round=round_index,
        config_digest="",
        inputs={},
        outputs={},
        seed=0,
        versions={},
        started_ms=0,
        ended_ms=1,
    )
    write_manifest(folder, manifest)
    return folder


@pytest.mark.parametrize(
    ("trained", "wanted"),
    [
        ([], 2),
        ([2, 0], 2),  # only the last round's training adds one
        ([0, 1], 3),
        ([0, 1, 1], 3),
        ([0, 2, 2], 4),
        ([0, 2, 2, 2], 4),
        ([0, 2, 0], 3),
    ],
)
def test_rounds_are_added_one_by_one_up_to_what_the_rule_allows(
    tmp_path: Path, trained: list[int], wanted: int
) -> None:
    for number, extra_rounds in enumerate(trained):
        train(tmp_path, number + 1, extra_rounds=extra_rounds)
    assert rounds_wanted(tmp_path, rounds=2) == wanted


def test_an_unfinished_training_and_one_of_an_earlier_version_add_none(tmp_path: Path) -> None:
    train(tmp_path, 1)
    assert rounds_wanted(tmp_path, rounds=1) == 1
    (train(tmp_path, 2, extra_rounds=1) / "manifest.json").unlink()
    assert rounds_wanted(tmp_path, rounds=2) == 2
