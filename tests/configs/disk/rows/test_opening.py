from pathlib import Path

import pytest

from configs.disk.rows.opening import local_digest, local_files, looks_like_path
from configs.errors import ConfigError


@pytest.mark.parametrize(
    "path", ["gsm8k", "openai/gsm8k", "AI-MO/NuminaMath-1.5", "HuggingFaceH4/MATH-500", "a_b/c.d-e"]
)
def test_an_id_of_a_hub_is_no_path(path: str, workspace: Path) -> None:
    assert not looks_like_path(path)
    assert local_digest(path) is None


@pytest.mark.parametrize(
    "path", ["a.json", "A/B.PARQUET", "x/y.jsonl.zst", "data.zip", "../a", "/a", "~/a", "a/b/c", "a\\b", "a/*"]
)
def test_what_only_a_path_can_be_is_one(path: str, workspace: Path) -> None:
    assert looks_like_path(path)
    if "*" not in path:
        assert local_digest(path) == "gone"


def test_a_digest_changes_with_any_file_that_is_named(workspace: Path) -> None:
    for name in ("a.jsonl", "b.jsonl", "data/c.csv"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("1")
    before = [local_digest(path) for path in ("a.jsonl", "data", "*.jsonl", ["a.jsonl", "data/*"])]
    assert None not in before
    assert len(set(before)) == 4
    for name in ("a.jsonl", "data/c.csv"):
        Path(name).write_text("22")
    after = [local_digest(path) for path in ("a.jsonl", "data", "*.jsonl", ["a.jsonl", "data/*"])]
    assert all(old != new for old, new in zip(before, after, strict=True))


def test_a_pattern_of_nothing_is_named(workspace: Path) -> None:
    with pytest.raises(ConfigError, match=r"data/\*\.csv matches no file; set field"):
        local_files("data/*.csv", "field")
