"""Runs in a workspace that was moved or copied, also those that a version with absolute paths began."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from configs.disk.files import write_json, write_jsonl
from configs.errors import ConfigError
from configs.reader import load_config
from configs.schema.config import Config
from grpo_train.policies.adapter import carried_adapter
from tasks.running.cleaning import plan_cleaning
from tasks.running.stage import for_run
from tasks.runs.champions import champions
from tasks.runs.follow_on import follow_on
from tasks.runs.history import closed_round, last_champion, policy_of
from tasks.runs.rollbacks import roll_back
from tasks.runs.run_file import create_run, open_run, read_run, stored_config, write_run
from tasks.runs.run_records import read_run_records
from tasks.runs.workspace import read_champion, run_folder
from tests.paths import TINY
from tests.tasks.a_chain import id_of, put_model, write_run_of
from tests.tasks.stage_kit import LetterSpec, open_in, tiny


def values_in(value: Any) -> list[str]:
    if isinstance(value, dict | list):
        return [text for child in (value.values() if isinstance(value, dict) else value) for text in values_in(child)]
    return [value] if isinstance(value, str) else []


def texts(root: Path) -> list[str]:
    """All strings in the JSON files of a workspace."""
    return [text for path in root.rglob("*.json") for text in values_in(json.loads(path.read_bytes()))]


def changed(value: Any, change: Callable[[str, Any], Any]) -> Any:
    if isinstance(value, dict):
        return {name: change(name, changed(child, change)) for name, child in value.items()}
    return [changed(child, change) for child in value] if isinstance(value, list) else value


def as_0_1_0_wrote_it(root: Path) -> None:
    """Make the paths of models absolute, and take away the fields of run.json that came later."""

    def absolute(name: str, value: Any) -> Any:
        is_ours = name == "path" and isinstance(value, str) and value.startswith(("runs/", "models/"))
        return str(root / value) if is_ours else value

    for path in [*root.rglob("run.json"), *root.rglob("round.json"), *root.rglob("origin.json")]:
        content = json.loads(path.read_bytes())
        later = {name: content.pop(name, None) for name in ("old_roots", "spelled")}
        assert path.name != "run.json" or later == {"old_roots": [], "spelled": {}}
        config = content.pop("config", None)
        content = changed(content, absolute) | ({} if config is None else {"config": config})
        write_json(path, content)


def chain_in(root: Path) -> None:
    write_run_of(root, True, True)
    write_run_of(root, True, predecessor="tiny")


@pytest.fixture(params=["new", "old"])
def moved(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A chain of two runs in a copied workspace, whose original is still there and holds other weights."""
    original, copy = tmp_path / "original", tmp_path / "copy"
    chain_in(original)
    if request.param == "old":
        as_0_1_0_wrote_it(original)
    else:
        assert not [text for text in texts(original) if str(tmp_path) in text]
    shutil.copytree(original, copy)
    for weights in original.rglob("*.safetensors"):
        weights.write_bytes(b"other weights")
    return copy


def test_all_that_a_run_goes_on_from_is_in_its_own_workspace(moved: Path) -> None:
    champion = read_champion(moved)
    assert champion is not None
    paths = [champion.path, *(champion.path for champion in champions(moved, ["tiny", "tiny-0002"]))]
    for name in ("tiny", "tiny-0002"):
        file, folder = read_run(moved, name), run_folder(moved, name)
        last, state = last_champion(folder), closed_round(folder, 1)
        assert file.given_policy is not None
        assert file.initial_policy is not None
        assert last is not None
        assert state is not None
        given = read_run_records(folder).given_policy
        assert given == file.given_policy
        policies = [file.given_policy, file.initial_policy, last, policy_of(folder, 0), *vars(state.state).values()]
        paths += [policy.path for policy in policies if hasattr(policy, "path")]
        paths += [model.path for model in file.reward_models.values()]
    assert len(paths) > 15
    for path in paths:
        assert Path(path).is_relative_to(moved), path
        assert Path(path).is_dir()
    assert champion.policy_id == id_of("tiny-0002 1")


def test_a_follow_on_and_a_rollback_and_a_cleaning_take_what_is_there(moved: Path) -> None:
    stays = {piece.path.relative_to(moved).as_posix() for piece in plan_cleaning(moved, keep_rounds=1).stays}
    assert "runs/tiny-0002/round_001/policy/model" in stays
    back = roll_back(moved, "tiny-0002", to_round=None, reason="")[1]
    assert back.path == str(moved / "runs" / "tiny" / "round_002" / "policy" / "model")
    third = follow_on(moved, tiny("rounds=1"), "tiny-0002")
    assert third.given_policy is not None
    assert third.given_policy.path == back.path
    written = json.loads((run_folder(moved, third.name) / "run.json").read_bytes())
    assert written["given_policy"]["path"] == "runs/tiny/round_002/policy/model"
    assert not [text for text in values_in(written) if str(moved.parent) in text]


def test_what_an_earlier_version_wrote_becomes_relative_when_it_is_written_again(moved: Path) -> None:
    for name in ("tiny", "tiny-0002"):
        write_run(moved, read_run(moved, name))
        content = json.loads((run_folder(moved, name) / "run.json").read_bytes())
        assert content["given_policy"]["path"].startswith(("models/", "runs/"))
    again = moved.with_name("third place")
    moved.rename(again)
    paths = [champion.path for champion in champions(again, ["tiny", "tiny-0002"])]
    assert all(Path(path).is_relative_to(again) for path in paths)


def test_an_adapter_that_is_carried_on_finds_its_base(moved: Path) -> None:
    lora = tiny("grpo_config.lora={rank: 4, between_rounds: carry_on}").grpo_config.lora
    assert lora is not None
    file = read_run(moved, "tiny")
    was_old = "spelled" not in json.loads((run_folder(moved, "tiny") / "run.json").read_bytes())
    assert file.given_policy is not None
    base = file.given_policy
    policy = policy_of(run_folder(moved, "tiny"), 1)
    start = str(moved.with_name("original") / "models" / "start") if was_old else "models/start"
    origin = {"base": base.model_dump() | {"path": start}, "lora": lora.model_dump(mode="json")}
    write_json(Path(policy.path).parent / "adapter" / "origin.json", origin)
    carried = carried_adapter(policy, lora)
    assert carried is not None
    assert carried[0] == base


# ---- paths of the configuration -------------------------------------------------------------------------------------


def config_with(path: Path, *overrides: str) -> Config:
    file = {"kind": "file", "path": str(path)}
    config = load_config(TINY, [f"problems.sources=[{json.dumps(file)}]", *overrides])
    return config


def test_a_path_of_the_user_in_the_workspace_is_relative_and_one_outside_stays(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    write_jsonl(old / "sums.jsonl", [{"question": "1 + 1", "answer": "2"}])
    file = create_run(old, config_with(old / "sums.jsonl", "policy.path=/data/model"))
    assert file.config["problems"]["sources"][0]["path"] == "sums.jsonl"
    assert file.config["policy"]["path"] == "/data/model"
    old.rename(new)
    assert open_run(new, config_with(new / "sums.jsonl", "policy.path=/data/model")) == read_run(new, "tiny")
    with pytest.raises(ConfigError, match=r"problems\.sources\.0\.path"):
        open_run(new, config_with(old / "sums.jsonl", "policy.path=/data/model"))


class ProblemsLetters(LetterSpec):
    def reads(self) -> tuple[str, ...]:
        return ("seed", "problems", "rewards")


@pytest.mark.parametrize("is_moved", [False, True])
def test_digests_of_an_earlier_version_stay_valid_where_it_wrote_whole_paths(is_moved: bool, tmp_path: Path) -> None:
    old = tmp_path / "old"
    write_jsonl(old / "sums.jsonl", [{"question": "1 + 1", "answer": "2"}])
    scope = json.dumps([str(old / "sums.jsonl")])
    config = config_with(old / "sums.jsonl", "run.date=2026-01-01", f"rewards.0.sources={scope}")
    put_model(old / "models" / "tiny", "given")
    create_run(old, config)
    path = run_folder(old, "tiny") / "run.json"
    given = {"path": str(old / "models" / "tiny"), "id": "a", "round": 0}
    content = json.loads(path.read_bytes()) | {"given_policy": given, "initial_policy": given}
    content = {name: value for name, value in content.items() if name not in ("old_roots", "spelled")}
    write_json(path, content | {"config": config.model_dump(mode="json")})
    was = ProblemsLetters(config=config, round=0).config_digest()

    root = tmp_path / "new" if is_moved else old
    old.rename(root)
    scope = json.dumps([str(root / "sums.jsonl")])
    asked = config_with(root / "sums.jsonl", "run.date=2026-01-01", f"rewards.0.sources={scope}")
    file = open_run(root, asked)
    source = stored_config(file).problems.sources[0]
    assert (source.path, source.source) == ("sums.jsonl", str(old / "sums.jsonl"))
    run = open_in(root, asked, uri="sqlite://")
    assert for_run(run, ProblemsLetters(config=stored_config(file), round=0)).config_digest() == was
    assert open_run(root, asked) == file, "also once it was written again"
