"""Checkpoints of a stage's folder: whole or not at all, the newest whole one counts, and the last two stay."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from configs.disk.checkpoints import Checkpoints, Seal, discard_checkpoints, last_saved_step, saved_steps


def checkpoints_of(stage: Path, warnings: list[str] | None = None, *, work: str = "w", every: int = 2) -> Checkpoints:
    said = [] if warnings is None else warnings
    return Checkpoints(stage, fingerprint=work, every=every, keep=2, warn=said.append)


def write_at(step: int) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "weights").write_text(f"weights {step}")
        (folder / "inner").mkdir()
        (folder / "inner" / "state").write_text(f"state {step}")

    return write


def train(stage: Path, steps: int, *, first: int = 1, work: str = "w") -> None:
    """Each step writes three bytes of journal, and every second one a checkpoint."""
    checkpoints = checkpoints_of(stage, work=work)
    stage.mkdir(exist_ok=True)
    for step in range(first, steps + 1):
        with (stage / "journal.jsonl").open("a") as file:
            file.write(f"{step:02}\n")
        if checkpoints.due(step):
            checkpoints.save(step, write_at(step))


def newest_of(stage: Path, warnings: list[str] | None = None) -> str:
    found = checkpoints_of(stage, warnings).newest()
    assert found is not None
    return found[0].name


def step_of(seal: Seal | None) -> int:
    assert seal is not None
    return seal.step


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    """Seven steps, checkpoints of 2 (gone), 4 and 6."""
    train(tmp_path / "stage", 7)
    return tmp_path / "stage"


def test_the_last_two_are_kept(stage: Path) -> None:
    assert [folder.name for folder in saved_steps(stage)] == ["step_000004", "step_000006"]
    assert sorted(path.name for path in (stage / "checkpoints").iterdir()) == ["step_000004", "step_000006"]
    assert last_saved_step(stage) == 6


def test_the_newest_one_counts_and_holds_what_was_written(stage: Path) -> None:
    found = checkpoints_of(stage).newest()
    assert found is not None
    folder, seal = found
    assert seal.step == 6
    assert seal.lengths == {"journal.jsonl": 18}  # 6 steps of 3 bytes
    assert (folder / "inner" / "state").read_text() == "state 6"


@pytest.mark.parametrize(
    ("tear", "why"),
    [
        (lambda newest: (newest / "weights").write_text("weights 5"), "torn: weights"),
        (lambda newest: (newest / "inner" / "state").unlink(), "torn: inner/state"),
        (lambda newest: (newest / "more").write_text(""), "torn: more"),
        (lambda newest: (newest / "checkpoint.json").write_text('{"step": 6'), "Invalid JSON"),
        (lambda newest: (newest / "checkpoint.json").unlink(), "No such file"),
        (lambda newest: (newest.parents[1] / "journal.jsonl").write_text("01\n" * 5), "shorter than then"),
    ],
)
def test_a_torn_newest_checkpoint_is_skipped_with_a_warning(
    stage: Path, tear: Callable[[Path], object], why: str
) -> None:
    warnings: list[str] = []
    tear(stage / "checkpoints" / "step_000006")
    assert newest_of(stage, warnings) == "step_000004"
    assert len(warnings) == 1
    assert "step_000006 is not used" in warnings[0]
    assert why in warnings[0]


def test_a_stage_goes_back_to_its_newest_checkpoint(stage: Path) -> None:
    (stage / "model").mkdir()
    (stage / "model" / "half.safetensors").write_text("half")
    (stage / "checkpoints" / ".unfinished").mkdir()
    assert step_of(checkpoints_of(stage).rewind()) == 6
    assert (stage / "journal.jsonl").read_text() == "".join(f"{step:02}\n" for step in range(1, 7))
    assert sorted(path.name for path in stage.rglob("*") if path.parent != stage / "checkpoints" / "step_000004") == sorted(
        ["checkpoints", "step_000004", "step_000006", "inner", "state", "weights", "checkpoint.json", "journal.jsonl", "state"]
    )  # fmt: skip


def test_what_is_newer_than_the_checkpoint_that_counts_is_removed(stage: Path) -> None:
    (stage / "checkpoints" / "step_000006" / "weights").write_text("torn")
    assert step_of(checkpoints_of(stage).rewind()) == 4
    train(stage, 8, first=5)
    assert [folder.name for folder in saved_steps(stage)] == ["step_000006", "step_000008"]
    assert (stage / "journal.jsonl").read_text() == "".join(f"{step:02}\n" for step in range(1, 9))
    assert newest_of(stage) == "step_000008"


def test_other_work_starts_from_an_empty_folder(stage: Path) -> None:
    warnings: list[str] = []
    assert checkpoints_of(stage, warnings, work="other").rewind() is None
    assert list(stage.rglob("*")) in ([], [stage / "checkpoints"])
    assert "another configuration or other inputs" in warnings[0]


def test_a_stage_without_checkpoints_starts_from_an_empty_folder(tmp_path: Path) -> None:
    train(tmp_path / "stage", 1)
    assert checkpoints_of(tmp_path / "stage").rewind() is None
    assert list((tmp_path / "stage").iterdir()) == []
    assert checkpoints_of(tmp_path / "never").rewind() is None
    assert (tmp_path / "never").is_dir()


def test_due_every_second_step_and_wanted_once_where_training_stops(tmp_path: Path) -> None:
    checkpoints = checkpoints_of(tmp_path)
    assert [step for step in range(6) if checkpoints.due(step)] == [2, 4]
    assert [step for step in range(3) if checkpoints.wanted(step)] == [1, 2]
    checkpoints.save(4, write_at(4))
    assert not checkpoints.wanted(4)
    resumed = checkpoints_of(tmp_path)
    resumed.newest()
    assert not resumed.wanted(4)
    assert resumed.wanted(5)


def test_zero_is_off(tmp_path: Path) -> None:
    checkpoints = checkpoints_of(tmp_path, every=0)
    assert not any(checkpoints.due(step) or checkpoints.wanted(step) for step in range(10))


def test_seconds_of_all_attempts_are_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 130.0, 1000.0, 1002.5])
    monkeypatch.setattr("configs.disk.checkpoints.time.monotonic", lambda: next(clock))
    first = checkpoints_of(tmp_path)
    first.save(2, write_at(2))
    second = checkpoints_of(tmp_path)
    second.newest()
    second.save(4, write_at(4))
    found = second.newest()
    assert found is not None
    assert found[1].seconds == 32.5  # 130 - 100, and 1002.5 - 1000


def test_the_seal_is_readable(stage: Path) -> None:
    seal = json.loads((stage / "checkpoints" / "step_000006" / "checkpoint.json").read_text())
    assert seal.keys() == {"step", "fingerprint", "files", "lengths", "seconds"}
    assert seal["files"].keys() == {"weights", "inner/state"}


def test_a_finished_stage_keeps_none(stage: Path) -> None:
    discard_checkpoints(stage)
    discard_checkpoints(stage)
    assert not (stage / "checkpoints").exists()
    assert last_saved_step(stage) == 0
