"""One registered model a chain and kind, whose aliases follow the champion from run to run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.running.run import Run
from tasks.running.stage import run_stage
from tasks.runs.facts import ModelFact, Outcome
from tasks.runs.run_file import create_run, read_run
from tasks.tracking.aliases import Event, aliases_after
from tests.tasks.stage_kit import LetterSpec, open_in, tiny, write_letters
from tests.tasks.tracking.kit import client, close_round, policy_folder, policy_stage, store, whole_run


def follow_on(root: Path, name: str, predecessor: str) -> Run:
    config = tiny(f"run.name={name}")
    create_run(root, config, predecessor=predecessor)
    return open_in(root, config)


def given(run: Run, policy_id: str) -> None:
    """The stage that registers the policy that the run starts from."""
    folder = run.workspace / "models" / policy_id
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(policy_id.encode())
    model = ModelFact(
        name=run.policy_model,
        folder="policy",
        alias="champion",
        tags={"regroup.policy_id": policy_id},
        source=str(folder),
    )
    spec = LetterSpec(config=run.config, round=0, model_id=policy_id)
    run_stage(run, spec, run.folder / "problems", write_letters, outcome=lambda: Outcome(model=model))


def served(root: Path, name: str = "tiny-policy") -> dict[str, str]:
    """{alias: run and policy that it serves}"""
    known = client(root)
    versions = {
        alias: known.get_model_version_by_alias(name, alias) for alias in known.get_registered_model(name).aliases
    }
    return {alias: f"{v.tags['regroup.run']} {v.tags['regroup.policy_id']}" for alias, v in versions.items()}


def a_run(run: Run, start: str, *, champion: int, **options: Any) -> None:
    run.tracking.start()
    given(run, start)
    policy_stage(run, **options)
    close_round(run, champion=champion)
    run.tracking.finish("FINISHED")


def test_a_chain_has_one_registered_model_with_a_version_for_each_policy(root: Path) -> None:
    a_run(open_in(root), "p0", champion=1)
    assert served(root) == {"champion": "tiny p1", "previous": "tiny p0"}
    second = follow_on(root, "tiny-0002", "tiny")
    second.tracking.start()
    given(second, "p1")
    assert served(root) == {"champion": "tiny p1", "previous": "tiny p0"}, "the given policy is registered already"
    policy_stage(second, policy_id="p2")
    assert served(root) == {"champion": "tiny p1", "previous": "tiny p0", "challenger": "tiny-0002 p2"}
    close_round(second, champion=1)
    second.tracking.finish("FINISHED")
    assert served(root) == {"champion": "tiny-0002 p2", "previous": "tiny p1"}
    third = follow_on(root, "other", "tiny-0002")
    a_run(third, "p2", champion=0, policy_id="p3")
    assert served(root) == {"champion": "tiny-0002 p2", "previous": "tiny p1", "challenger": "other p3"}
    known = client(root)
    assert [model.name for model in known.search_registered_models()] == ["tiny-policy"]
    versions = known.search_model_versions("name='tiny-policy'")
    tags = {v.tags["regroup.policy_id"]: (v.tags["regroup.run"], v.tags["regroup.round"]) for v in versions}
    assert tags == {"p0": ("tiny", "0"), "p1": ("tiny", "1"), "p2": ("tiny-0002", "1"), "p3": ("other", "1")}


def test_two_workspaces_with_one_name_on_one_server_do_not_mix(root: Path) -> None:
    here, there = root / "here", root / "there"
    for folder, policy_id in ((here, "p1"), (there, "q1")):
        folder.mkdir()
        run = open_in(folder, uri=store(root))
        a_run(run, "p0", champion=1, policy_id=policy_id)
    suffix = read_run(there, "tiny").uid[:6]
    assert [model.name for model in client(root).search_registered_models()] == ["tiny-policy", f"tiny-policy-{suffix}"]
    assert served(root) == {"champion": "tiny p1", "previous": "tiny p0"}
    assert served(root, f"tiny-policy-{suffix}") == {"champion": "tiny q1", "previous": "tiny p0"}


def test_a_registered_model_of_somebody_else_is_left_alone(root: Path) -> None:
    client(root).create_registered_model("tiny-policy", tags={"mine": "yes"})
    a_run(open_in(root), "p0", champion=1)
    assert client(root).get_registered_model("tiny-policy").aliases == {}
    assert len(client(root).search_registered_models()) == 2


def test_a_registered_model_that_an_earlier_version_made_for_the_chain_is_gone_on_with(root: Path) -> None:
    run = open_in(root)
    client(root).create_registered_model("tiny-policy")
    client(root).create_model_version(
        "tiny-policy", "file:///x", tags={"regroup.key": f"{run.file.uid}/round_007/policy"}
    )
    a_run(run, "p0", champion=1)
    assert [model.name for model in client(root).search_registered_models()] == ["tiny-policy"]
    assert served(root)["champion"] == "tiny p1"


def test_a_run_that_an_earlier_version_began_under_its_own_name_serves_its_champion_under_the_chains(
    root: Path,
) -> None:
    a_run(open_in(root), "p0", champion=1)
    second = follow_on(root, "tiny-0002", "tiny")
    second.tracking.start()
    folder = second.folder / "problems"
    old = ModelFact(name="tiny-0002-policy", folder="policy", alias="champion", tags={"regroup.policy_id": "p9"})
    run_stage(
        second, LetterSpec(config=second.config, round=0), folder, write_letters, outcome=lambda: Outcome(model=old)
    )
    policy_stage(second, policy_id="p2")
    close_round(second, champion=0)
    second.tracking.finish("FINISHED")
    assert served(root) == {"champion": "tiny-0002 p9", "previous": "tiny p1", "challenger": "tiny-0002 p2"}
    assert served(root, "tiny-0002-policy") == {"champion": "tiny-0002 p9"}


def test_the_run_that_is_sent_late_moves_no_alias_back(root: Path) -> None:
    away = open_in(root, uri="http://127.0.0.1:9")
    a_run(away, "p0", champion=1)
    second = follow_on(root, "tiny-0002", "tiny")
    a_run(second, "p1", champion=1, policy_id="p2")
    assert served(root) == {"champion": "tiny-0002 p2", "previous": "tiny p1"}
    versions = client(root).search_model_versions("name='tiny-policy'")
    assert {v.tags["regroup.run"] for v in versions} == {"tiny", "tiny-0002"}


def test_a_registered_model_that_was_deleted_comes_back_with_what_the_run_needs(root: Path) -> None:
    run = open_in(root)
    whole_run(run)
    client(root).delete_registered_model("tiny-policy")
    again = open_in(root)
    again.tracking.start()
    again.tracking.finish("FINISHED")
    assert served(root) == {"champion": "tiny p1"}


def test_the_champion_can_be_downloaded_by_its_alias(root: Path, monkeypatch: Any) -> None:
    import mlflow

    a_run(open_in(root), "p0", champion=1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store(root))
    path = Path(mlflow.artifacts.download_artifacts("models:/tiny-policy@champion", dst_path=str(root / "got")))
    assert (path / "weights.safetensors").read_bytes() == (
        policy_folder(open_in(root)) / "model/weights.safetensors"
    ).read_bytes()


def test_the_previous_champion_is_the_one_before() -> None:
    events = [
        Event(-1, False, 0, "m", "champion", "a"),
        Event(1, False, 0, "m", "challenger", "b"),
        Event(1, True, 0, "m", "champion", "b"),
        Event(1, True, 0, "m", "challenger", None),
        Event(2, True, 0, "m", "champion", "b"),
        Event(2, True, 0, "m", "challenger", "c"),
    ]
    assert aliases_after(events[:2]) == {"m": {"champion": "a", "previous": None, "challenger": "b"}}
    assert aliases_after(events[:4]) == {"m": {"champion": "b", "previous": "a", "challenger": None}}
    assert aliases_after(events) == {"m": {"champion": "b", "previous": "a", "challenger": "c"}}


def test_an_accepted_reward_model_replaces_the_refused_one_before() -> None:
    events = [
        Event(1, False, 0, "r", "champion", "a"),
        Event(2, False, 0, "r", "challenger", "b"),
        Event(3, False, 0, "r", "champion", "c"),
    ]
    assert aliases_after(events) == {"r": {"champion": "c", "previous": "a", "challenger": None}}
