"""When a stage is copied from a run beside, and what the copy says of itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from configs.disk.files import MANIFEST, read_manifest
from configs.schema.config import Config
from tasks.running.run import Run
from tasks.running.stage import Context, run_stage
from tasks.running.stage_spec import mismatch
from tasks.runs.run_file import stored_config
from tasks.runs.times import run_time
from tests.tasks.stage_kit import LetterSpec, open_untold, tiny, write_letters


class AlikeSpec(LetterSpec):
    """Letters that no learning rate changes."""

    def depends_on(self) -> tuple[str, ...]:
        return ("seed", "grpo_config.max_response_length")


class Writing:
    """A body that notes for which runs it worked."""

    def __init__(self) -> None:
        self.worked: list[str] = []

    def __call__(self, spec: LetterSpec, out_dir: Path, context: Context) -> None:
        self.worked.append(spec.config.run_name)
        write_letters(spec, out_dir, context)


def member(root: Path, name: str, *overrides: str, beside: tuple[str, ...] = ("first",)) -> Run:
    run = open_untold(root, tiny(f"run.name={name}", *overrides))
    return replace(run, config=stored_config(run.file), beside=beside)


def stage_of(run: Run) -> Path:
    return run.folder / "round_000" / "evaluate"


def spec_of(config: Config, *, model_id: str = "model-1") -> AlikeSpec:
    return AlikeSpec(config=config, round=0, model_id=model_id)


@pytest.fixture
def body(tmp_path: Path) -> Writing:
    """The body that wrote the stage of the first run."""
    body, first = Writing(), member(tmp_path, "first", beside=())
    run_stage(first, spec_of(first.config), stage_of(first), body)
    return body


def worked(run: Run, body: Writing, spec: LetterSpec | None = None) -> bool:
    """Whether the body works for the run."""
    run_stage(run, spec or spec_of(run.config), stage_of(run), body)
    return run.name in body.worked


def test_what_a_run_beside_wrote_for_the_same_is_copied(tmp_path: Path, body: Writing) -> None:
    run = member(tmp_path, "second", "grpo_config.learning_rate=0.5")
    assert not worked(run, body)
    theirs, mine = (read_manifest(tmp_path / "runs" / name / "round_000/evaluate") for name in ("first", "second"))
    assert theirs is not None
    assert mine is not None
    assert mine.outputs == theirs.outputs
    assert mine.config_digest != theirs.config_digest, "it is that of its own configuration"
    assert (theirs.copied_from, mine.copied_from) == (None, "first")
    assert mismatch(stage_of(run), spec_of(run.config)) is None
    assert mine.seconds == pytest.approx(theirs.seconds, abs=1e-3), "what the work took"


def test_a_copy_is_no_part_of_the_runs_own_time(tmp_path: Path, body: Writing) -> None:
    run = member(tmp_path, "second")
    manifest = stage_of(run).parents[2] / "first/round_000/evaluate" / MANIFEST
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"worked_s": 100.0}))
    assert not worked(run, body)
    run.note_time(ended=True)
    spent = run_time(run.folder)
    assert spent.copied == pytest.approx(100, abs=0.1)
    assert spent.stages == 0
    assert spent.whole == spent.bookkeeping


def test_a_copy_of_a_copy_names_the_run_that_wrote_it(tmp_path: Path, body: Writing) -> None:
    assert not worked(member(tmp_path, "second"), body)
    third = member(tmp_path, "third", beside=("second",))
    assert not worked(third, body)
    manifest = read_manifest(stage_of(third))
    assert manifest is not None
    assert manifest.copied_from == "first"


@pytest.mark.parametrize("overrides", [["seed=7"], ["grpo_config.max_response_length=9"], ["run.date=2020-02-29"]])
def test_a_run_that_asks_for_something_else_works_itself(tmp_path: Path, body: Writing, overrides: list[str]) -> None:
    assert worked(member(tmp_path, "second", *overrides), body)


def test_other_inputs_are_worked_on(tmp_path: Path, body: Writing) -> None:
    run = member(tmp_path, "second")
    assert worked(run, body, spec_of(run.config, model_id="model-2"))


def test_a_run_that_is_not_named_is_not_copied_from(tmp_path: Path, body: Writing) -> None:
    assert worked(member(tmp_path, "second", beside=("absent",)), body)


def test_a_stage_that_may_not_be_copied_is_not(tmp_path: Path) -> None:
    body = Writing()
    for name in ("first", "second"):
        run = member(tmp_path, name)
        assert worked(run, body, LetterSpec(config=run.config, round=0))


@pytest.mark.parametrize(
    "damage", ["a file changed", "a file is gone", "unfinished", "other versions", "broken run.json"]
)
def test_what_is_not_whole_is_not_copied(tmp_path: Path, body: Writing, damage: str) -> None:
    theirs = tmp_path / "runs/first/round_000/evaluate"
    if damage == "a file changed":
        (theirs / "result.json").write_text("{}")
    elif damage == "a file is gone":
        (theirs / "result.json").unlink()
    elif damage == "unfinished":
        (theirs / MANIFEST).unlink()
    elif damage == "other versions":
        manifest = json.loads((theirs / MANIFEST).read_text())
        manifest["versions"]["torch"] = "1.0"
        (theirs / MANIFEST).write_text(json.dumps(manifest))
    else:
        (tmp_path / "runs/first/run.json").write_text("{")
    run = member(tmp_path, "second")
    assert worked(run, body)
    assert (stage_of(run) / "result.json").read_text() == f'{{"seed": {run.config.seed}}}'
