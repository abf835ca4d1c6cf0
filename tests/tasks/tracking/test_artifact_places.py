"""MLflow's database of a workspace that was moved or copied."""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.parse import unquote, urlparse

from mlflow import MlflowClient

from tests.tasks.stage_kit import open_in
from tests.tasks.tracking.kit import all_runs, client, whole_run


def places(root: Path) -> set[Path]:
    """Where the workspace's database says that artifacts are: of the experiment and of each run."""
    experiment = client(root).get_experiment_by_name("regroup")
    uris = [experiment.artifact_location, *(run.info.artifact_uri for run in all_runs(root))]
    found = [Path(unquote(urlparse(uri).path)) for uri in uris]
    return {place if place.name == "mlartifacts" else place.parent.parent for place in found}


def test_artifacts_are_read_and_written_where_the_workspace_is(tmp_path: Path) -> None:
    old, copy, new = tmp_path / "old", tmp_path / "copy of it", tmp_path / "new"
    old.mkdir()
    whole_run(open_in(old))
    shutil.copytree(old, copy)
    open_in(copy).tracking.start()
    assert places(copy) == {copy / "mlartifacts"}, "though the original is there"
    assert places(old) == {old / "mlartifacts"}

    old.rename(new)
    run = open_in(new)
    run.tracking.start()
    run.tracking.finish("FINISHED")
    assert places(new) == {new / "mlartifacts"}
    assert not old.exists()
    [parent] = [run for run in all_runs(new) if "mlflow.parentRunId" not in run.data.tags]
    assert Path(client(new).download_artifacts(parent.info.run_id, "run.json", str(tmp_path))).exists()


def test_artifacts_on_another_disk_stay_there(tmp_path: Path) -> None:
    disk, root = tmp_path / "disk" / "mlartifacts", tmp_path / "work"
    disk.mkdir(parents=True)
    root.mkdir()
    MlflowClient(f"sqlite:///{root / 'mlflow.db'}").create_experiment("regroup", artifact_location=disk.as_uri())
    whole_run(open_in(root))
    assert places(root) == {disk}
    moved = root.rename(tmp_path / "moved")
    open_in(moved).tracking.start()
    assert places(moved) == {disk}
