"""A workspace keeps its id when it is moved, and a copy gets its own."""

from __future__ import annotations

import shutil
from pathlib import Path

from flows.serving.workspaces import FILE, workspace_at


def test_a_moved_folder_is_the_same_workspace_and_a_copy_another(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    first, other = workspace_at(tmp_path / "a"), workspace_at(tmp_path / "b")
    assert workspace_at(tmp_path / "a") == first
    assert not first.is_same(other)

    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    copy = workspace_at(tmp_path / "copy")
    assert not copy.is_same(first)
    assert workspace_at(tmp_path / "a") == first

    (tmp_path / "a").rename(tmp_path / "moved")
    moved = workspace_at(tmp_path / "moved")
    assert moved.id == first.id
    assert moved.path == str(tmp_path / "moved")
    assert moved.is_same(first)


def test_a_folder_whose_id_was_lost_is_known_by_its_path(tmp_path: Path) -> None:
    before = workspace_at(tmp_path)
    (tmp_path / FILE).write_text("{")
    after = workspace_at(tmp_path)
    assert after.id != before.id
    assert after.is_same(before)
