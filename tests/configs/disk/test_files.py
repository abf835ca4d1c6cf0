import hashlib
import json
import os
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from configs.disk.files import (
    Journal,
    Manifest,
    append_jsonl,
    digest,
    digest_files,
    digest_json,
    link_or_copy,
    read_jsonl,
    read_manifest,
    weights_id,
    write_atomic,
    write_json,
    write_jsonl,
    write_manifest,
)
from configs.records import Policy

POLICIES = [Policy(path="a", id="1", round=0), Policy(path="b", id="2", round=1)]
HELLO = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
"""sha256 of hello"""


def test_write_replaces_the_whole_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    write_atomic(path, "hello, a longer text")
    write_atomic(path, b"hello")
    assert path.read_text() == "hello"
    assert digest(path) == HELLO
    assert os.listdir(path.parent) == ["a.txt"]


def test_json_refuses_what_json_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not (tmp_path / "a.json").exists()


def test_records_come_back_as_written(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_jsonl(path, POLICIES[:1])
    append_jsonl(path, POLICIES[1:])
    assert read_jsonl(path, Policy) == POLICIES


def test_line_that_a_kill_tore_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_jsonl(path, POLICIES)
    path.write_bytes(path.read_bytes()[:-5])
    assert read_jsonl(path, Policy) == POLICIES[:1]


def test_a_settled_file_is_read_once_and_a_fresh_or_changed_one_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights"
    reads: list[str] = []
    original = hashlib.file_digest

    def spy(file: BinaryIO, name: str) -> Any:
        reads.append(file.name)
        return original(file, name)

    monkeypatch.setattr(hashlib, "file_digest", spy)
    path.write_bytes(b"one")
    assert digest(path) == digest(path) == hashlib.sha256(b"one").hexdigest()
    assert len(reads) == 2  # just written
    os.utime(path, ns=(0, 10**18))
    assert digest(path) == digest(path) == hashlib.sha256(b"one").hexdigest()
    assert len(reads) == 3
    path.rename(tmp_path / "renamed")
    assert digest(tmp_path / "renamed") == hashlib.sha256(b"one").hexdigest()
    assert len(reads) == 3
    path.write_bytes(b"two")
    os.utime(path, ns=(0, 10**18 + 1))
    assert digest(path) == hashlib.sha256(b"two").hexdigest()


def test_digest_of_json_ignores_the_order_of_keys() -> None:
    assert digest_json({"a": 1, "b": [2]}) == digest_json({"b": [2], "a": 1})
    assert digest_json({"a": 1}) != digest_json({"a": 2})


def test_digests_of_a_folder_leave_out_what_is_named(tmp_path: Path) -> None:
    for name in ("a.txt", "model/b.txt", "checkpoints/c.txt"):
        write_atomic(tmp_path / name, "hello")
    assert digest_files(tmp_path, leave_out=["checkpoints"]) == {"a.txt": HELLO, "model/b.txt": HELLO}


def test_folder_without_safetensors_has_no_weights_id(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(FileNotFoundError, match="save the model there as safetensors"):
        weights_id(tmp_path)


def test_journal_keeps_values_in_order_and_refuses_what_is_not_finite(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "stage" / "journal.jsonl")
    assert journal.read() == []
    journal.write(1, {"policy/loss": 0.5, "reward/mean": 1.0})
    with pytest.raises(ValueError, match="policy/loss is nan at step 2"):
        journal.write(2, {"reward/mean": 1.0, "policy/loss": float("nan")})
    journal.write(3, {"policy/loss": 0.25})
    lines = [(line.key, line.step, line.value) for line in journal.read()]
    assert lines == [("policy/loss", 1, 0.5), ("reward/mean", 1, 1.0), ("policy/loss", 3, 0.25)]


def test_manifest_comes_back_and_a_missing_one_is_none(tmp_path: Path) -> None:
    manifest = Manifest(
        stage="policy",
        round=1,
        config_digest="c",
        inputs={},
        outputs={},
        seed=0,
        versions={},
        started_ms=1000,
        ended_ms=3500,
    )
    assert read_manifest(tmp_path) is None
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest
    assert manifest.seconds == 2.5
    assert json.loads((tmp_path / "manifest.json").read_text())["stage"] == "policy"


def test_link_holds_the_same_bytes_and_replaces_what_was_there(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "folder" / "b"
    source.write_text("hello")
    link_or_copy(source, target)
    link_or_copy(source, target)
    assert target.read_text() == "hello"
    assert target.stat().st_ino == source.stat().st_ino
