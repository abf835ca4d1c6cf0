"""Paths that are relative on disk where they lie in the workspace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from configs.config_paths import as_spelled, names_kept, with_paths
from configs.older_paths import old_roots
from configs.paths import Place, place_of
from configs.records import Policy


def test_a_path_in_the_workspace_is_relative_on_disk_and_absolute_in_memory(tmp_path: Path) -> None:
    place = Place(tmp_path)
    policy = Policy(path=str(tmp_path / "models" / "tiny"), id="a", round=0)
    written = policy.model_dump(mode="json", context=place.context)
    assert written["path"] == "models/tiny"
    assert Policy.model_validate(written, context=place.context) == policy
    assert Policy.model_validate(written, context=Place(Path("/elsewhere")).context).path == "/elsewhere/models/tiny"


@pytest.mark.parametrize("path", ["/data/model", "relative/model"])
def test_other_paths_stay_as_they_are(path: str, tmp_path: Path) -> None:
    assert Place(tmp_path).stored(path) == path


def test_a_path_that_leads_up_and_out_of_the_workspace_is_outside(tmp_path: Path) -> None:
    outside = str(tmp_path / "work" / ".." / "shared")
    (tmp_path / "work").mkdir()
    assert Place(tmp_path / "work").stored(outside) == outside
    assert Place(tmp_path).stored(outside) == "shared"


def test_a_path_through_a_link_to_the_workspace_is_one_of_the_workspace(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "work")
    assert Place(tmp_path / "work").stored(str(tmp_path / "link" / "models" / "tiny")) == "models/tiny"


def test_a_link_in_the_workspace_to_a_folder_outside_is_in_the_workspace(tmp_path: Path) -> None:
    """A folder `models` that is a link to a large disk goes along as a link."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "models").symlink_to(tmp_path / "disk")
    assert Place(tmp_path / "work").stored(str(tmp_path / "work" / "models" / "tiny")) == "models/tiny"


def test_the_place_of_a_file_is_found_by_the_run_that_it_belongs_to(tmp_path: Path) -> None:
    stage = tmp_path / "runs" / "runs" / "round_001" / "policy"
    stage.mkdir(parents=True)
    assert place_of(stage / "x.json") is None
    (tmp_path / "runs" / "runs" / "run.json").write_text("{}")
    place = place_of(stage / "x.json")
    assert place is not None
    assert place.root == tmp_path


# ---- runs of earlier versions ---------------------------------------------------------------------------------------


def content(given: str, config_path: str = "builtin:tiny") -> dict[str, object]:
    policy = {"path": given, "id": "a", "round": 0}
    return {"config": {"policy": {"path": config_path}}, "given_policy": policy, "initial_policy": policy}


@pytest.mark.parametrize(
    ("given", "config_path"),
    [
        ("/old/place/models/tiny", "builtin:tiny"),
        ("/old/place/my/own", "my/own"),
        ("/old/place/runs/tiny/round_002/policy/model", "builtin:tiny"),
    ],
)
def test_the_old_workspace_follows_from_the_policy_that_a_run_started_from(
    given: str, config_path: str, tmp_path: Path
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "runs" / "tiny" / "round_002" / "policy").mkdir(parents=True)
    assert old_roots(content(given, config_path), tmp_path / "runs" / "tiny-0002") == ["/old/place"]


def test_a_policy_that_the_user_named_by_its_whole_path_says_nothing_of_the_workspace(tmp_path: Path) -> None:
    """It may be one of another workspace, whose runs have the same names."""
    path = "/other/runs/tiny/round_002/policy/model"
    (tmp_path / "runs" / "tiny" / "round_002" / "policy").mkdir(parents=True)
    assert old_roots(content(path, path), tmp_path / "runs" / "tiny") == []
    round_file = tmp_path / "runs" / "tiny" / "round_001" / "round.json"
    round_file.parent.mkdir()
    trained = {"path": "/old/place/runs/tiny/round_001/policy/model"}
    round_file.write_text(json.dumps({"state": {"policy": trained}}))
    assert old_roots(content(path, path), tmp_path / "runs" / "tiny") == ["/old/place"]


def test_a_path_below_the_old_workspace_is_one_of_the_present_one_though_the_old_one_is_there(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for root in (old, new):
        (root / "models" / "tiny").mkdir(parents=True)
    run_dir = new / "runs" / "tiny"
    run_dir.mkdir(parents=True)
    (run_dir / "run.json").write_text(json.dumps(content(str(old / "models" / "tiny"))))
    place = Place(new, run_dir)
    assert place.found(str(old / "models" / "tiny")) == str(new / "models" / "tiny")
    assert place.found("/data/models/tiny") == "/data/models/tiny"


# ---- paths of the configuration -------------------------------------------------------------------------------------


def test_sources_keep_the_names_that_their_old_paths_gave_them() -> None:
    old = {
        "problems": {"sources": [{"kind": "file", "path": "/old/a.jsonl"}, {"kind": "file", "path": ["/old/b", "c"]}]},
        "rewards": [{"name": "correct", "sources": ["/old/a.jsonl"]}],
        "evaluation": {"rewards": []},
    }
    spelled = {"a.jsonl": "/old/a.jsonl", "b": "/old/b"}
    kept = names_kept(with_paths(old, lambda path: path.removeprefix("/old/")), spelled)
    assert kept["problems"]["sources"] == [
        {"kind": "file", "path": "a.jsonl", "source": "/old/a.jsonl"},
        {"kind": "file", "path": ["b", "c"], "source": "/old/b, c"},
    ]
    assert kept["rewards"] == old["rewards"]
    assert as_spelled(kept, spelled) == old


def test_the_folder_that_vllm_servers_see_is_relative_where_it_lies_in_the_workspace() -> None:
    """It was kept as a whole path, and a run that was moved wrote weights where the workspace had been."""
    config = {"grpo_config": {"vllm": {"folder": "/place/shared", "urls": ["http://a"]}}, "run": {"name": "/place/x"}}
    assert with_paths(config, lambda path: path.removeprefix("/place/")) == {
        "grpo_config": {"vllm": {"folder": "shared", "urls": ["http://a"]}},
        "run": {"name": "/place/x"},
    }
    config["grpo_config"]["vllm"]["folder"] = None
    assert with_paths(config, str.upper) == config
