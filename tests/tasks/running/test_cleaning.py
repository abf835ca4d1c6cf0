"""What cleaning removes, what stays, and that cleaned stages stay finished."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from configs.disk.files import read_manifest, write_json
from configs.errors import ConfigError
from configs.records import Policy
from flows.commands import champion_of
from tasks.running import cleaning
from tasks.running.cleaning import carry_out, plan_cleaning, with_artifacts
from tasks.running.stage import run_stage
from tasks.running.stage_spec import mismatch
from tasks.runs.cleaned import CLEANED, is_cleaned, note_cleaned, refuse_cleaned, saved_policy
from tasks.runs.facts import StageFacts, save
from tasks.runs.follow_on import follow_on
from tasks.runs.rollbacks import roll_back
from tasks.runs.run_file import create_run, read_run, write_run
from tasks.runs.workspace import cold_start_folder, round_folder, run_folder
from tasks.stages.prepare import prepare
from tasks.tracking.outbox import TRACKING, StageTracking
from tests.tasks.a_chain import WEIGHTS, finish_stage, id_of, put_model, write_run_of
from tests.tasks.stage_kit import LetterSpec, open_untold, tiny, write_letters


def models(root: Path) -> set[str]:
    """`tiny 1` for the policy of round 1 of `tiny`, `tiny 1 taste` for its reward model, of those that are there."""
    found = set()
    for path in (root / "runs").glob("*/round_*/**/model.safetensors"):
        run, round_dir, stage = path.relative_to(root / "runs").parts[:3]
        found.add(f"{run} {int(round_dir[6:])}" + ("" if stage == "policy" else " taste"))
    return found


def clean(root: Path, keep_rounds: int = 1, only: str | None = None) -> None:
    carry_out(plan_cleaning(root, keep_rounds=keep_rounds, only=only))


def test_of_one_run_champions_the_newest_round_and_the_last_reward_model_stay(tmp_path: Path) -> None:
    write_run_of(tmp_path, True, True, False, False)
    clean(tmp_path)
    # 2 is champion and 1 the one before it; 3 was refused
    assert models(tmp_path) == {"tiny 1", "tiny 2", "tiny 4", "tiny 4 taste"}
    assert champion_of(tmp_path, "tiny").id == id_of("tiny 2")


def test_keep_rounds_counts_the_newest_rounds_of_the_chain(tmp_path: Path) -> None:
    write_run_of(tmp_path, True, True, True)
    write_run_of(tmp_path, True, predecessor="tiny")
    clean(tmp_path, keep_rounds=3)
    assert models(tmp_path) == {
        f"{name}{what}" for name in ("tiny 2", "tiny 3", "tiny-0002 1") for what in ("", " taste")
    }
    clean(tmp_path)
    assert models(tmp_path) == {"tiny 3", "tiny-0002 1", "tiny-0002 1 taste"}


def test_a_long_chain_does_not_grow(tmp_path: Path) -> None:
    """Nothing was ever cleaned: each run of a schedule added its models."""
    name = write_run_of(tmp_path, True)
    for _ in range(4):
        name = write_run_of(tmp_path, True, predecessor=name)
        clean(tmp_path)
        assert len(models(tmp_path)) == 3  # champion, the one before it, a reward model
    assert (tmp_path / "models" / "start" / "model.safetensors").exists()


def test_an_unfinished_run_keeps_what_it_goes_on_from(tmp_path: Path) -> None:
    write_run_of(tmp_path, True, True)
    write_run_of(tmp_path, True, name="other", done=False)
    follow_on(tmp_path, tiny(), "tiny")
    checkpoint = round_folder(run_folder(tmp_path, "tiny-0002"), 1) / "policy" / "checkpoints" / "step_000002"
    put_model(checkpoint, "half way")
    clean(tmp_path)
    assert models(tmp_path) == {"tiny 1", "tiny 2", "tiny 2 taste", "tiny-0002 1", "other 1", "other 1 taste"}


def test_the_policy_that_rounds_start_anew_from_stays_and_without_it_no_round_starts(tmp_path: Path) -> None:
    anew = tiny("policy.start_from=given", "rounds=4", "run.name=tiny-0002")
    write_run_of(tmp_path, True, True)
    write_run_of(tmp_path, True, True, True, predecessor="tiny", done=False)
    clean(tmp_path)
    assert "tiny 2" in models(tmp_path)  # neither champion nor the one before it
    file = read_run(tmp_path, "tiny-0002")
    write_run(tmp_path, file.model_copy(update={"config": anew.model_dump(mode="json")}))
    run = open_untold(tmp_path, anew)
    stage = round_folder(run_folder(tmp_path, "tiny"), 2) / "policy"
    note_cleaned(stage, ["model/model.safetensors"])
    shutil.rmtree(stage / "model")
    with pytest.raises(ConfigError, match=r"tiny/round_002/policy/model was cleaned away on .*; copy its files back"):
        prepare(run)


def test_what_a_cold_start_made_stays_before_run_json_names_it(tmp_path: Path) -> None:
    """A run that was killed between the two lost it to the cleaning, and could not go on."""
    create_run(tmp_path, tiny("cold_start={own_samples: {}}"))
    folder = cold_start_folder(run_folder(tmp_path, "tiny"))
    put_model(folder / "model", "cold")
    finish_stage(folder, "cold_start", 0)
    plan = plan_cleaning(tmp_path, keep_rounds=1)
    assert {piece.path: piece.why for piece in plan.stays}[folder / "model"] == "cold start of run tiny"
    assert plan.goes == []


def test_another_chain_that_started_from_a_model_keeps_it(tmp_path: Path) -> None:
    write_run_of(tmp_path, True, True, True)
    model = round_folder(run_folder(tmp_path, "tiny"), 1) / "policy" / "model"
    config = tiny(f"policy.path={model.relative_to(tmp_path)}", "run.name=other")
    create_run(tmp_path, config)
    plan = plan_cleaning(tmp_path, keep_rounds=1)
    assert {piece.path: piece.why for piece in plan.stays}[model] == "policy.path of run other"


def test_the_base_of_an_adapter_that_is_carried_on_stays(tmp_path: Path) -> None:
    write_run_of(tmp_path, True, True, True)
    folder = run_folder(tmp_path, "tiny")
    base = round_folder(folder, 1) / "policy" / "model"
    for index in (2, 3):
        origin = {"base": Policy(path=str(base), id="x", round=1).model_dump()}
        write_json(round_folder(folder, index) / "policy" / "adapter" / "origin.json", origin)
    clean(tmp_path)
    assert {"tiny 1", "tiny 2", "tiny 3"} <= models(tmp_path)


def test_after_a_rollback_the_champion_that_is_back_stays(tmp_path: Path) -> None:
    write_run_of(tmp_path, True, True, True, True)
    roll_back(tmp_path, "tiny", to_round=2, reason="")
    clean(tmp_path)
    assert models(tmp_path) == {"tiny 1", "tiny 2", "tiny 4", "tiny 4 taste"}
    with pytest.raises(ConfigError, match=r"round_003/policy/model was cleaned away on .*; copy its files back"):
        roll_back(tmp_path, "tiny", to_round=3, reason="")


def test_what_mlflow_was_not_sent_yet_stays(tmp_path: Path) -> None:
    write_run_of(tmp_path, True, True, True)
    stage = round_folder(run_folder(tmp_path, "tiny"), 1) / "policy"
    told = StageTracking(facts=StageFacts(key="k", started_ms=1, tags={}, params={}, datasets=[]))
    save(stage / TRACKING, told)
    plan = plan_cleaning(tmp_path, keep_rounds=1)
    assert {piece.path: piece.why for piece in plan.stays}[stage / "model"] == "MLflow was not sent it yet"
    save(stage / TRACKING, told.model_copy(update={"done": True}))
    clean(tmp_path)
    assert "tiny 1" not in models(tmp_path)


def test_leftovers_go_and_an_interrupted_stage_keeps_its_checkpoints(tmp_path: Path) -> None:
    write_run_of(tmp_path, True)
    folder = run_folder(tmp_path, "tiny")
    finished = round_folder(folder, 1) / "policy"
    interrupted = round_folder(folder, 2) / "policy"
    for stage in (finished, interrupted):
        put_model(stage / "checkpoints" / "step_000002", "c")
    put_model(interrupted / "checkpoints" / ".unfinished", "c")
    put_model(interrupted / "last_good", "g")
    (folder / ".summary.json.4711.tmp").write_text("{")
    clean(tmp_path)
    assert not (finished / "checkpoints").exists()
    assert [path.name for path in (interrupted / "checkpoints").iterdir()] == ["step_000002"]
    assert not (interrupted / "last_good").exists()
    assert not list(folder.glob(".*.tmp"))


def test_only_the_run_that_is_named_is_cleaned(tmp_path: Path) -> None:
    write_run_of(tmp_path, True, True, True)
    write_run_of(tmp_path, True, True, True, name="other")
    clean(tmp_path, only="other")
    assert "tiny 1" in models(tmp_path)
    assert "other 1" not in models(tmp_path)


def test_bytes_are_freed_where_no_hard_link_is_left(tmp_path: Path) -> None:
    write_run_of(tmp_path, True, True, True)
    folder = run_folder(tmp_path, "tiny")
    artifacts = tmp_path / "mlartifacts" / "abc" / "artifacts" / "model"
    artifacts.mkdir(parents=True)
    linked = artifacts / "model.safetensors"
    os.link(round_folder(folder, 1) / "policy" / "model" / "model.safetensors", linked)
    plan = plan_cleaning(tmp_path, keep_rounds=1)
    # the policy of round 1, and the reward models of rounds 1 and 2
    assert (plan.size, plan.freed) == (3 * WEIGHTS, 2 * WEIGHTS)
    assert str(plan).startswith("1.95 KiB of 2.93 KiB; MLflow's artifacts are hard links that keep the other 0.977 KiB")
    more = with_artifacts(tmp_path, plan)
    assert (more.size, more.freed) == (3 * WEIGHTS, 3 * WEIGHTS)
    carry_out(more)
    assert not linked.exists()


def test_a_kill_in_the_middle_leaves_a_right_state_and_the_next_call_removes_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run_of(tmp_path, True, True, True)
    model = round_folder(run_folder(tmp_path, "tiny"), 1) / "policy" / "model"
    plan = plan_cleaning(tmp_path, keep_rounds=1)

    def killed(folder: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cleaning.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            carry_out(plan)
    assert (model.parent / CLEANED).exists()
    assert not is_cleaned(model)  # nothing is gone yet
    refuse_cleaned(model)
    clean(tmp_path)
    assert is_cleaned(model)
    assert saved_policy(model, 1).id == id_of("tiny 1")


def test_a_part_of_the_shards_is_no_model(tmp_path: Path) -> None:
    write_run_of(tmp_path, True)
    stage = round_folder(run_folder(tmp_path, "tiny"), 1) / "policy"
    (stage / "model" / "model.safetensors").unlink()
    write_json(stage / CLEANED, {"files": ["model/model.safetensors", "model/other"], "at_ms": 1})
    assert saved_policy(stage / "model", 1).id == id_of("tiny 1")


def test_a_cleaned_stage_is_not_run_again_and_one_whose_files_are_lost_is(tmp_path: Path) -> None:
    run = open_untold(tmp_path)
    spec = LetterSpec(config=run.config, round=1)
    folder = run.folder / "round_001" / "policy"
    run_stage(run, spec, folder, write_letters)
    manifest = read_manifest(folder)
    shutil.rmtree(folder / "model")
    assert mismatch(folder, spec) == "files changed or are gone: model/weights.safetensors"
    write_json(folder / CLEANED, {"files": ["model/weights.safetensors"], "at_ms": 1})
    assert mismatch(folder, spec) is None
    assert run_stage(run, spec, folder, write_letters) == manifest
    (folder / "result.json").unlink()
    assert mismatch(folder, spec) == "files changed or are gone: result.json"
    run_stage(run, spec, folder, write_letters)
    assert (folder / "model" / "weights.safetensors").exists()
    assert not (folder / CLEANED).exists()
