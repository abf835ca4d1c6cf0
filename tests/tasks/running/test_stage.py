"""When a stage runs, and when what is on disk stands."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from configs.disk.files import digest, read_manifest
from configs.errors import StageStopped
from tasks.running.stage import Context, run_stage
from tasks.running.stage_spec import mismatch
from tests.tasks.stage_kit import LetterSpec, open_untold, tiny, write_letters


class Counting:
    """A body that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, spec: LetterSpec, out_dir: Path, context: Context) -> None:
        self.calls += 1
        assert not list(out_dir.glob("[!.]*")), "a body starts in a clean folder"
        write_letters(spec, out_dir, context)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "tiny" / "round_001" / "policy"


def test_a_finished_stage_is_not_run_again(tmp_path: Path, folder: Path) -> None:
    run, spec, body = open_untold(tmp_path), LetterSpec(config=tiny(), round=1), Counting()
    first = run_stage(run, spec, folder, body)
    assert run_stage(open_untold(tmp_path), spec, folder, body) == first
    assert body.calls == 1


def test_manifest_names_every_file_with_its_digest(tmp_path: Path, folder: Path) -> None:
    manifest = run_stage(open_untold(tmp_path), LetterSpec(config=tiny(), round=1), folder, write_letters)
    assert sorted(manifest.outputs) == ["journal.jsonl", "model/weights.safetensors", "result.json", "rollouts.jsonl"]
    assert all(digest(folder / name) == value for name, value in manifest.outputs.items())
    assert (manifest.stage, manifest.round, manifest.inputs) == ("policy", 1, {"policy": "model-1"})
    assert {"torch", "transformers", "trl", "regroup", "python", "num_threads"} == set(manifest.versions)


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        (LetterSpec(config=tiny("grpo_config.learning_rate=0.5"), round=1), "seed, grpo_config"),
        (LetterSpec(config=tiny(), round=1, model_id="model-2"), "inputs changed: policy"),
    ],
)
def test_other_configuration_or_inputs_make_a_stage_run_again(
    tmp_path: Path, folder: Path, spec: LetterSpec, why: str
) -> None:
    body = Counting()
    run_stage(open_untold(tmp_path), LetterSpec(config=tiny(), round=1), folder, body)
    assert why in str(mismatch(folder, spec))
    run_stage(open_untold(tmp_path), spec, folder, body)
    assert body.calls == 2
    assert mismatch(folder, spec) is None


def test_a_part_of_the_configuration_that_is_not_read_does_not_matter(tmp_path: Path, folder: Path) -> None:
    run_stage(open_untold(tmp_path), LetterSpec(config=tiny(), round=1), folder, write_letters)
    assert mismatch(folder, LetterSpec(config=tiny("rounds=9", "evaluation.num_samples=7"), round=1)) is None


@pytest.mark.parametrize("damage", ["change", "remove"])
def test_damaged_files_make_a_stage_run_again(tmp_path: Path, folder: Path, damage: str) -> None:
    spec = LetterSpec(config=tiny(), round=1)
    run_stage(open_untold(tmp_path), spec, folder, write_letters)
    weights = folder / "model" / "weights.safetensors"
    weights.unlink()
    if damage == "change":
        weights.write_bytes(b"v" * 100)
    assert mismatch(folder, spec) == "files changed or are gone: model/weights.safetensors"


def test_a_torn_manifest_is_no_manifest(tmp_path: Path, folder: Path) -> None:
    spec, body = LetterSpec(config=tiny(), round=1), Counting()
    run_stage(open_untold(tmp_path), spec, folder, body)
    (folder / "manifest.json").write_text('{"stage": "pol')
    run_stage(open_untold(tmp_path), spec, folder, body)
    assert body.calls == 2
    assert mismatch(folder, spec) is None


@pytest.mark.parametrize("error", [StageStopped("stopped"), ValueError("broken"), KeyboardInterrupt()])
def test_an_interrupted_stage_leaves_no_manifest_and_starts_over(
    tmp_path: Path, folder: Path, error: BaseException
) -> None:
    def stop() -> None:
        raise error

    spec = LetterSpec(config=tiny(), round=1)
    with pytest.raises(type(error)):
        run_stage(open_untold(tmp_path), spec, folder, partial(write_letters, then=stop))
    assert read_manifest(folder) is None
    body = Counting()
    run_stage(open_untold(tmp_path), spec, folder, body)
    assert body.calls == 1


def test_checkpoints_are_no_outputs(tmp_path: Path, folder: Path) -> None:
    def body(spec: LetterSpec, out_dir: Path, context: Context) -> None:
        write_letters(spec, out_dir, context)
        (out_dir / "checkpoints").mkdir()
        (out_dir / "checkpoints" / "step_000001").write_text("big")

    manifest = run_stage(open_untold(tmp_path), LetterSpec(config=tiny(), round=1), folder, body)
    assert not [name for name in manifest.outputs if name.startswith("checkpoints")]


def test_a_spec_crosses_to_a_child_job_as_json() -> None:
    spec = LetterSpec(config=tiny(), round=1)
    assert LetterSpec.model_validate_json(spec.model_dump_json()) == spec
