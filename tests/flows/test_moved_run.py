"""A workspace is a folder: killed in one place, moved or copied to another, gone on with there, as if nothing had happened."""

from __future__ import annotations

import re
import shutil
import signal
import sqlite3
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
import yaml
from mlflow import MlflowClient

from configs.disk.files import digest, read_manifest, read_rows
from tasks.runs.champions import champions
from tasks.runs.follow_on import follow_on, follow_on_seed
from tasks.runs.lineage import pair_files
from tasks.runs.run_file import read_run, stored_config
from tests.flows.whole_runs.tiny_run import Call, end_calls, journal_values, regroup, summary_of
from tests.paths import TINY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

CONFIG, TEXT_FILES = "nightly.yaml", (".json", ".jsonl", ".md", ".html", ".jinja", ".toml")


def write_config(workspace: Path) -> None:
    """Tiny, with what else keeps paths: an adapter that is carried on, and people who are asked."""
    tiny = yaml.safe_load(TINY.read_text())
    tiny["run"] = {"name": "tiny"}
    tiny["grpo_config"] |= {"lora": {"rank": 4, "between_rounds": "carry_on"}, "save_steps": 1}
    asked = {"kind": "people", "num_items": 8, "wait_minutes": 0, "otherwise": {"kind": "score"}}
    tiny["reward_models"]["taste"]["labeler"] = asked
    (workspace / CONFIG).write_text(yaml.safe_dump(tiny))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = tmp_path_factory.mktemp("undisturbed")
    write_config(workspace)
    call = regroup(workspace, "run", CONFIG)
    assert call.process.returncode == 0, call.err
    return workspace


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Workspaces of one run that was killed in round 1: one that was moved, and one that was copied before. The first is gone."""
    folder = tmp_path_factory.mktemp("places")
    old = folder / "old"
    old.mkdir()
    write_config(old)
    call = Call(old, "run", CONFIG)
    call.until((old / "runs/tiny/round_001/policy/checkpoints/step_000002").exists, timeout_s=600)
    call.kill()
    end_calls()
    assert list(naming(old, old)) == []
    places = {"copied": folder / "another place" / "ö", "renamed": folder / "new"}
    shutil.copytree(old, places["copied"], symlinks=True)
    old.rename(places["renamed"])
    return places


def naming(workspace: Path, place: Path) -> list[Path]:
    """The files of runs, reviews and of Prefect's leftovers that hold the path of that place; what was said is left out."""
    folders = [workspace / name for name in ("runs", "review", "models", ".prefect")]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and path.name != "log.txt"]
    ours = [path for path in files if ".prefect" not in path.parts or path.suffix == ".json"]
    return [path for path in ours if str(place).encode() in path.read_bytes()]


def test_a_killed_run_goes_on_where_its_folder_is_now(undisturbed: Path, moved: dict[str, Path]) -> None:
    for how, workspace in moved.items():
        call = regroup(workspace, "run", CONFIG)
        assert call.process.returncode == 0, (how, call.err)
        assert "round 1 · reward model · taste: already done" in call.err
        assert "round 1 · policy: goes on after step" in call.err
        assert "runs again" not in call.err
        assert "lacks" not in call.out + call.err
        assert list(naming(workspace, workspace)) == [], how
        assert not (moved["renamed"].parent / "old").exists(), "nothing is written to where it was"
        assert_same_weights(undisturbed, workspace)


def assert_same_weights(one: Path, other: Path) -> None:
    files = sorted(path.relative_to(one) for path in one.glob("runs/**/*.safetensors"))
    assert len(files) >= 6
    for file in files:
        assert digest(one / file) == digest(other / file), file
    for journal in one.glob("runs/tiny/round_*/**/journal.jsonl"):
        place = journal.parent.relative_to(one)
        assert journal_values(journal.parent) == journal_values(other / place), place


@pytest.mark.parametrize("how", ["renamed", "copied"])
def test_mlflow_has_each_run_once_and_its_files_can_be_read(how: str, moved: dict[str, Path], tmp_path: Path) -> None:
    workspace = moved[how]
    with sqlite3.connect(workspace / "mlflow.db") as database:
        twice = "select value, count(*) from tags join runs using (run_uuid) where key = 'regroup.key' and "
        twice += "lifecycle_stage = 'active' group by value having count(*) > 1"
        assert database.execute(twice).fetchall() == []
        steps = "select run_uuid, key, step from metrics group by run_uuid, key, step having count(*) > 1"
        assert database.execute(steps).fetchall() == []
        assert database.execute("select name from runs where status = 'RUNNING'").fetchall() == []
        located = [row for row in database.iterdump() if str(workspace.parent / "old") in unquote(row)]
        assert [row for row in located if "regroup.workspace" not in row] == []
    client = MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")
    num_files = 0
    for path in (workspace / "runs" / "tiny").rglob("manifest.json"):
        manifest = read_manifest(path.parent)
        assert manifest is not None
        run = client.get_run(str(manifest.mlflow_run_id))
        assert Path(unquote(urlparse(run.info.artifact_uri).path)).is_relative_to(workspace / "mlartifacts")
        for name, wanted in manifest.outputs.items():
            got = client.download_artifacts(run.info.run_id, name, str(tmp_path))
            assert digest(Path(got)) == wanted, (path, name)
            num_files += 1
    assert num_files > 50
    champion = client.get_model_version_by_alias("tiny-policy", "champion")
    assert champion.tags["regroup.policy_id"] == summary_of(workspace)["champion"]["policy_id"]


@pytest.mark.parametrize("how", ["renamed", "copied"])
def test_every_command_works_where_the_folder_is_now(how: str, moved: dict[str, Path], tmp_path: Path) -> None:
    workspace = moved[how]
    assert re.search(r"tiny +done", regroup(workspace, "status").out)
    assert regroup(workspace, "sample", "tiny", "2 + 3 =").process.returncode == 0
    exported = regroup(workspace, "export", "tiny", str(tmp_path / "exported"))
    assert exported.process.returncode == 0, exported.err
    assert (tmp_path / "exported" / "model.safetensors").exists()
    assert regroup(workspace, "report", "tiny").process.returncode == 0
    report = (workspace / "runs/tiny/report.html").read_text()
    assert not re.search(r'href="(/|file:)', report), "links hold wherever the folder lies"
    assert summary_of(workspace)["champion"]["path"] == "runs/tiny/round_002/policy/model"

    asked = regroup(workspace, "review", "export", "items.csv")
    assert asked.process.returncode == 0, asked.err
    items = read_rows(workspace / "review" / "items.jsonl")
    answers = "item,choice,person\n" + f"{(items[0].get('item') or items[0])['id']},first,Ada\n"
    (workspace / "answers.csv").write_text(answers)
    given = regroup(workspace, "review", "import", "answers.csv")
    assert given.process.returncode == 0, given.err

    kept = regroup(workspace, "clean", "--dry-run").out
    assert re.search(r"stays .*runs/tiny/round_002/policy/model: champion of the workspace", kept)
    back = regroup(workspace, "rollback", "tiny", "--to", "0")
    assert back.process.returncode == 0, back.err
    assert regroup(workspace, "rollback", "tiny", "--to", "2").process.returncode == 0


def test_a_follow_on_starts_from_a_run_that_was_moved(moved: dict[str, Path]) -> None:
    workspace = moved["copied"]
    config = stored_config(read_run(workspace, "tiny"))
    name = follow_on(workspace, config.model_copy(update={"rounds": 1}), "tiny").name
    assert [file.parent.parent.parent.name for file in pair_files(workspace / "runs" / name, before=1)][:1] == ["tiny"]
    seed = f"seed={follow_on_seed(config.seed, name)}"
    call = Call(workspace, "run", CONFIG, "--run", name, "--set", seed, "--set", "rounds=1")
    call.until((workspace / "runs" / name / "round_001" / "policy" / "journal.jsonl").exists, timeout_s=600)
    call.process.send_signal(signal.SIGINT)
    assert call.end() == 130, call.err

    again = workspace.with_name("third place")
    workspace.rename(again)
    moved["copied"] = again
    done = regroup(again, "run", CONFIG, "--run", name, "--set", seed, "--set", "rounds=1")
    assert done.process.returncode == 0, done.err
    assert "runs again" not in done.err
    line = [(champion.run, champion.round) for champion in champions(again, ["tiny", name])]
    assert line[-2:] == [("tiny", 2), (name, 1)]
    assert list(naming(again, workspace)) == []
