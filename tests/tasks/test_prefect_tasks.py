"""The real stages on configs/tiny.yaml with a real MLflow store, without Prefect around them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
from mlflow import MlflowClient

from configs.disk.files import MANIFEST, digest, digest_json, read_manifest, weights_id
from configs.errors import ConfigError
from configs.records import Policy, RoundState
from configs.schema.config import Config
from grpo_train.policies.model import save_policy
from grpo_train.policies.tiny_model import build_tiny_model, build_tiny_tokenizer
from tasks import prefect_tasks as stages
from tasks.running.run import Run
from tasks.runs.follow_on import follow_on
from tasks.runs.history import INHERITED_CURRICULUM, curriculum_before, last_finished_round
from tasks.runs.run_file import read_run, stored_config, write_run
from tasks.runs.workspace import read_champion
from tasks.stages.cold_start.stage import begins_cold
from tasks.stages.policy import _curriculum, _start
from tasks.stages.reward_model import usable_models
from tasks.stages.rounds import first_state, handed_on, round_state
from tests.tasks.stage_kit import open_in, tiny

ONE_ROUND = (
    "rounds=1",
    "grpo_config.max_updates=2",
    "reward_models.taste.held_out_share=0.5",
    "reward_models.taste.epochs=2",
)
"""enough held-out pairs for every reward model to be accepted"""


def baseline(run: Run) -> RoundState:
    stages.prepare.fn(run)
    models = usable_models(run, 0)
    if begins_cold(run):
        stages.measure_before.fn(run)
        stages.cold_start.fn(run, models)
    state = first_state(run)
    stages.evaluate.fn(run, 0, state.policy, models)
    stages.regenerate.fn(run, 0, [state.policy], models)
    stages.finish_round.fn(run, state)
    return state


def one_round(run: Run, round_index: int, state: RoundState, *, promoted: bool = True) -> RoundState:
    stages.train_reward_model.fn(run, round_index, "taste", state)
    models = usable_models(run, round_index)
    policy = stages.train_policy.fn(run, round_index, state, models)
    stages.evaluate.fn(run, round_index, policy, models)
    assert stages.promote.fn(run, round_index, state.champion, policy).promoted is promoted
    champion = policy if promoted else state.champion
    stages.regenerate.fn(run, round_index, [champion] if promoted else [champion, policy], models)
    after = round_state(run, round_index, policy, champion)
    stages.finish_round.fn(run, after)
    return after


def whole(root: Path, config: Config) -> Run:
    run = open_in(root, config)
    run.tracking.start()
    state = baseline(run)
    for round_index in range(1, config.rounds + 1):
        state = one_round(run, round_index, state, promoted=config.promotion.rule == "always")
    run.tracking.finish("FINISHED")
    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Path]:
    """A workspace with a finished run of one round."""
    root = tmp_path_factory.mktemp("finished")
    shutil.copy(empty_store, root / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        whole(root, tiny(*ONE_ROUND))
        yield root


@pytest.fixture
def copied(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same workspace, to be changed."""
    root = tmp_path / "copy"
    shutil.copytree(finished, root)
    monkeypatch.chdir(root)
    return root


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ppo_begins_from_the_rounds_reward_model_and_the_samples_before_it(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    run = whole(tmp_path, tiny(*ONE_ROUND, "method={kind: ppo, value_model: taste, value_warmup_updates: 2}"))
    stage, before = run.folder / "round_001" / "policy", run.folder / "round_000" / "regenerate"
    manifest = read_manifest(stage)
    assert manifest is not None
    for name in ("completions", "scores"):
        assert manifest.inputs[f"samples/{name}"] == digest(before / f"{name}.jsonl")
    lines = [json.loads(line) for line in (stage / "journal.jsonl").read_text().splitlines()]
    explained = [line["value"] for line in lines if line["key"] == "value/explained_variance"]
    assert len(explained) == 2
    assert manifest.inputs["reward_model/taste"] == weights_id(run.folder / "round_001/reward_model/taste/model")


def manifests(root: Path) -> dict[str, float]:
    """{stage folder: modification time of its manifest}."""
    folder = root / "runs" / "tiny"
    return {path.parent.relative_to(folder).as_posix(): path.stat().st_mtime for path in folder.rglob(MANIFEST)}


def test_a_round_has_these_stages(finished: Path) -> None:
    assert sorted(manifests(finished)) == [
        "problems",
        "round_000/evaluate",
        "round_000/regenerate",
        "round_001/evaluate",
        "round_001/policy",
        "round_001/promote",
        "round_001/regenerate",
        "round_001/reward_model/taste",
    ]


def test_every_file_of_every_manifest_is_an_artifact_with_the_same_digest(finished: Path) -> None:
    uri = f"sqlite:///{finished / 'mlflow.db'}"
    client = MlflowClient(uri, uri)
    folder = finished / "runs" / "tiny"
    compared = 0
    for name in manifests(finished):
        manifest = read_manifest(folder / name)
        assert manifest is not None
        assert manifest.mlflow_run_id is not None
        artifacts = Path(client.get_run(manifest.mlflow_run_id).info.artifact_uri.removeprefix("file://"))
        assert {file: digest(artifacts / file) for file in manifest.outputs} == manifest.outputs
        compared += len(manifest.outputs)
    assert compared > 30
    experiment = client.get_experiment_by_name("regroup").experiment_id
    assert {run.info.status for run in client.search_runs([experiment])} == {"FINISHED"}


def test_an_evaluation_leaves_the_rollouts_of_training_as_they_were(finished: Path) -> None:
    """TRL's trainer writes the completions of an evaluation over those of the training step."""
    folder = finished / "runs" / "tiny" / "round_001"
    policy, evaluation = read_manifest(folder / "policy"), read_manifest(folder / "evaluate")
    assert policy is not None
    assert evaluation is not None
    assert digest(folder / "policy" / "rollouts.jsonl") == policy.outputs["rollouts.jsonl"]
    assert "rollouts.jsonl" not in evaluation.outputs


def test_registered_policies_are_given_and_trained(finished: Path) -> None:
    uri = f"sqlite:///{finished / 'mlflow.db'}"
    client = MlflowClient(uri, uri)
    champion = read_champion(finished)
    assert champion is not None
    version = client.get_model_version_by_alias("tiny-policy", "champion")
    assert version.tags["regroup.policy_id"] == champion.policy_id == weights_id(Path(champion.path))
    given = read_run(finished, "tiny").given_policy
    assert given is not None
    ids = {v.tags["regroup.policy_id"] for v in client.search_model_versions("name='tiny-policy'")}
    assert ids == {given.id, champion.policy_id}


def test_going_through_a_finished_run_runs_nothing(copied: Path) -> None:
    before = manifests(copied)
    whole(copied, tiny(*ONE_ROUND))
    assert manifests(copied) == before


def test_raising_rounds_goes_on_where_the_run_ended(copied: Path) -> None:
    before = manifests(copied)
    run = whole(copied, tiny(*ONE_ROUND, "rounds=2"))
    after = manifests(copied)
    assert {name: after[name] for name in before} == before
    assert "round_002/regenerate" in after
    assert "problems_002" in after
    last = last_finished_round(copied / "runs" / "tiny")
    assert last is not None
    assert last.round == 2
    assert_curriculum_goes_on(run)
    following = follow_on(copied, tiny(*ONE_ROUND), "tiny")
    assert curriculum_before(copied / "runs" / following.name, 1) == curriculum_before(run.folder, 3)
    assert following.curriculum is None


def assert_curriculum_goes_on(run: Run) -> None:
    """Each round asked 2 x 4 problems; the second one of the fewer that are left beside its own shard."""
    folders = [run.folder / f"round_00{round_index}" / "policy" for round_index in (1, 2)]
    first, second = (json.loads((folder / "curriculum.json").read_bytes()) for folder in folders)
    sizes = [(run.folder / name / "train.jsonl").read_bytes().count(b"\n") for name in ("problems", "problems_002")]
    assert first["epoch"] == pytest.approx(8 / sizes[0])
    assert second["epoch"] == pytest.approx(first["epoch"] + 8 / sizes[1])
    read = [read_manifest(folder) for folder in folders]
    assert [manifest.inputs["curriculum"] for manifest in read if manifest] == [digest_json(None), digest_json(first)]
    assert [curriculum_before(run.folder, round_index) for round_index in (1, 2, 3)] == [None, first, second]


def test_pass_rates_of_the_regeneration_reach_the_next_rounds_curriculum(copied: Path) -> None:
    run = open_in(copied, tiny(*ONE_ROUND))
    asking = replace(run, config=tiny(*ONE_ROUND, "curriculum={kind: threshold, difficulty: policy}"))
    champion, before = last_state(run).champion, curriculum_before(run.folder, 2)
    found = _curriculum(asking, 2, champion)
    assert found is not None
    assert {name: value for name, value in found.items() if name != "sources"} == before
    assert found["sources"].keys() == {"chain_sum"}
    assert _curriculum(run, 2, champion) == before
    predicting = replace(run, config=tiny(*ONE_ROUND, "curriculum={kind: predicted}"))
    of_problems = _curriculum(predicting, 2, champion)
    assert of_problems is not None
    assert {name: value for name, value in of_problems.items() if name != "regenerated"} == before
    rates = [row["rate"] for row in of_problems["regenerated"]]
    assert fmean(rates) == pytest.approx(found["sources"]["chain_sum"])  # groups of equal size
    assert json.loads(json.dumps(of_problems)) == of_problems


def test_the_next_round_starts_from_a_reward_model_made_by_hand(copied: Path) -> None:
    run = open_in(copied, tiny(*ONE_ROUND, "rounds=2"))
    run.tracking.start()
    by_hand = stages.retrain_reward_model.fn(run, "taste")
    assert by_hand.accepted, by_hand.reasons
    first = read_manifest(run.folder / "round_001" / "reward_model" / "taste")
    made = read_manifest(run.folder / "round_001" / "reward_model_by_hand" / "taste")
    assert first is not None
    assert made is not None
    assert made.inputs["base"] == weights_id(run.folder / "round_001" / "reward_model" / "taste" / "model")
    whole(copied, tiny(*ONE_ROUND, "rounds=2"))
    second = read_manifest(run.folder / "round_002" / "reward_model" / "taste")
    assert second is not None
    assert second.inputs["base"] == by_hand.id
    assert stages.retrain_reward_model.fn(run, "taste").num_train_pairs > 0


def test_a_follow_on_starts_from_the_champion_and_the_accepted_reward_model(copied: Path) -> None:
    champion = read_champion(copied)
    assert champion is not None
    file = follow_on(copied, tiny(*ONE_ROUND), "tiny")
    run = open_in(copied, stored_config(file))
    run.tracking.start()
    state = baseline(run)
    assert (state.policy.id, state.policy.round) == (champion.policy_id, 0)
    assert run.initial_policy == read_run(copied, "tiny").initial_policy
    assert set(usable_models(run, 0)) == {"taste"}
    report = stages.train_reward_model.fn(run, 1, "taste", state)
    manifest = read_manifest(run.folder / "round_001" / "reward_model" / "taste")
    assert manifest is not None
    assert manifest.inputs["base"] == file.reward_models["taste"].id
    assert report.num_replayed_pairs > 0
    old, new = (copied / "runs" / name / "problems" / "regenerate_000.jsonl" for name in ("tiny", "tiny-0002"))
    assert digest(old) != digest(new)


def test_a_round_that_starts_anew_trains_the_given_policy_and_mlflow_says_so(copied: Path) -> None:
    """At a learning rate of 1e-30 no float32 weight changes, so what was trained is what training started from."""
    still = (*ONE_ROUND, "rounds=2", "grpo_config.learning_rate=1e-30")
    run = open_in(copied, tiny(*ONE_ROUND, "rounds=2"))
    run.tracking.start()
    stages.prepare.fn(run)
    state, given = last_state(run), run.given_policy
    assert state.champion.id != given.id
    for start, policy_id in (("given", given.id), ("champion", state.champion.id)):
        asking = replace(run, config=tiny(*still, f"policy.start_from={start}"))
        assert stages.train_policy.fn(asking, 2, state, usable_models(run, 1)).id == policy_id
        manifest = read_manifest(run.folder / "round_002" / "policy")
        assert manifest is not None
        assert manifest.inputs["policy"] == policy_id
        told = MlflowClient(f"sqlite:///{copied / 'mlflow.db'}").get_run(manifest.mlflow_run_id)
        assert told.data.tags["regroup.parent_policy"] == policy_id
        assert told.data.params.get("policy.start_from") == (start if start == "given" else None)


def test_a_round_that_starts_anew_has_the_curriculum_of_the_first(copied: Path) -> None:
    """Pass rates of what round 1 trained would make problems wait that the given policy cannot answer yet."""
    anew = ("policy.start_from=given", "curriculum={kind: threshold, difficulty: policy}")
    run = replace(open_in(copied, tiny(*ONE_ROUND)), config=tiny(*ONE_ROUND, *anew))
    policy, curriculum = _start(run, 2, last_state(run).champion)
    assert policy == run.given_policy
    assert curriculum == _curriculum(run, 1, run.given_policy)
    assert curriculum is not None
    assert (curriculum["epoch"], curriculum["rates"], list(curriculum["sources"])) == (0.0, {}, ["chain_sum"])


def test_the_given_policy_of_a_follow_on_is_the_champion_that_it_follows_on_from(copied: Path) -> None:
    champion = read_champion(copied)
    assert champion is not None
    file = follow_on(copied, tiny(*ONE_ROUND, "policy.start_from=given"), "tiny")
    run = open_in(copied, stored_config(file))
    policy, curriculum = _start(run, 2, Policy(path="later", id="later", round=1))
    assert policy.id == champion.policy_id != run.initial_policy.id
    assert curriculum == curriculum_before(run.folder, 1)  # what the predecessor's last training handed on
    assert curriculum is not None


def test_a_refused_challenger_is_sampled_too_and_the_champion_stays(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    run = whole(tmp_path, tiny(*ONE_ROUND, "promotion.rule=better", "grpo_config.max_updates=1"))
    manifest = read_manifest(run.folder / "round_001" / "regenerate")
    trained = Policy.model_validate(last_state(run).policy)
    assert manifest is not None
    assert (manifest.inputs["policy/0"], manifest.inputs["policy/1"]) == (run.given_policy.id, trained.id)
    champion = read_champion(tmp_path)
    assert champion is not None
    assert (champion.round, champion.policy_id) == (0, run.given_policy.id)


def last_state(run: Run) -> RoundState:
    last = last_finished_round(run.folder)
    assert last is not None
    return last.state


def test_a_refused_reward_model_is_left_out_loudly(copied: Path) -> None:
    folder = copied / "runs" / "tiny" / "round_001" / "reward_model" / "taste"
    report = (folder / "report.json").read_text()
    (folder / "report.json").write_text(report.replace('"accepted": true', '"accepted": false'))
    run = open_in(copied, tiny(*ONE_ROUND))
    assert usable_models(run, 1) == {}


def test_a_stop_is_heard_between_steps(copied: Path) -> None:
    from configs.errors import StageStopped

    run = replace(open_in(copied, tiny(*ONE_ROUND, "rounds=2")), should_stop=lambda: True)
    state = last_state(run)
    stages.prepare.fn(run)
    with pytest.raises(StageStopped):
        stages.train_policy.fn(run, 2, state, {})
    assert read_manifest(run.folder / "round_002" / "policy") is None


def test_a_reward_model_may_begin_each_round_anew_from_a_backbone_of_its_own(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    run = open_in(
        tmp_path,
        tiny(*ONE_ROUND, "reward_models.taste.start_from=backbone", "reward_models.taste.backbone.path=./other"),
    )
    run.tracking.start()
    state = baseline(run)
    with pytest.raises(ConfigError, match=r"reward_models\.taste\.backbone\.path=\./other does not exist"):
        stages.train_reward_model.fn(run, 1, "taste", state)
    tokenizer = build_tiny_tokenizer()
    backbone = save_policy(build_tiny_model(tokenizer, seed=5), tokenizer, tmp_path / "other", round_index=0)
    for round_index in (1, 2):
        stages.train_reward_model.fn(run, round_index, "taste", state)
        folder = run.folder / f"round_{round_index:03d}" / "reward_model" / "taste"
        manifest = read_manifest(folder)
        assert manifest is not None
        assert manifest.inputs["base"] == backbone.id


def test_by_default_a_reward_model_is_trained_on_from_the_last_accepted_one(copied: Path) -> None:
    run = open_in(copied, tiny(*ONE_ROUND))
    last = run.folder / "round_001" / "reward_model" / "taste"
    stages.retrain_reward_model.fn(run, "taste")
    manifest = read_manifest(run.folder / "round_001" / "reward_model_by_hand" / "taste")
    assert manifest is not None
    assert manifest.inputs["base"] == weights_id(last / "model")


def test_a_round_begins_from_what_the_one_before_left_on_disk(copied: Path, tmp_path: Path) -> None:
    """Also in a workspace that was moved: ids come from `round.json`, paths are those of today."""
    before = last_state(open_in(copied, tiny(*ONE_ROUND)))
    moved = tmp_path / "moved"
    shutil.move(copied, moved)
    run = open_in(moved, tiny(*ONE_ROUND))
    state = handed_on(run, 1)
    assert (state.round, state.policy.id, state.champion.id) == (1, before.policy.id, before.champion.id)
    assert state.champion.path == str(run.folder / "round_001" / "policy" / "model")
    assert Path(state.champion.path).exists()


def test_runs_of_versions_that_kept_the_pass_rates_in_their_state_go_on(copied: Path) -> None:
    """Such a `round.json` and `run.json` hold them inline; a stage's inputs have the same digests as before."""
    path = copied / "runs" / "tiny" / "round_001" / "round.json"
    curriculum = json.loads((copied / "runs" / "tiny" / "round_001" / "policy" / "curriculum.json").read_bytes())
    old = json.loads(path.read_bytes())
    old["state"]["curriculum"] = curriculum
    path.write_text(json.dumps(old))
    run = open_in(copied, tiny(*ONE_ROUND))
    assert last_state(run).champion.id == handed_on(run, 1).champion.id
    assert digest_json(_curriculum(run, 2, handed_on(run, 1).champion)) == digest_json(curriculum)

    following = follow_on(copied, tiny(*ONE_ROUND), "tiny")
    (copied / "runs" / following.name / INHERITED_CURRICULUM).unlink()
    write_run(copied, following.model_copy(update={"curriculum": curriculum}))
    followed = open_in(copied, stored_config(following))
    assert digest_json(_curriculum(followed, 1, followed.given_policy)) == digest_json(curriculum)
