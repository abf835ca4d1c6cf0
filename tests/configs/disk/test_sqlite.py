"""SQLite databases lie where their path says, whatever signs it has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from configs.disk.sqlite import sqlite_url


def test_an_ordinary_path_has_the_usual_address() -> None:
    assert sqlite_url(Path("/data/mlflow.db")) == "sqlite:////data/mlflow.db"
    assert sqlite_url(Path("/data/prefect.db"), "aiosqlite") == "sqlite+aiosqlite:////data/prefect.db"


@pytest.mark.parametrize("name", ["what?", "a?b=c&d#e", "100%3F", "two words", "#1", "ä[1]@x:y;z", "file:?mode=memory"])
def test_the_database_lies_in_its_folder_and_nothing_beside_it(tmp_path: Path, name: str) -> None:
    """A `?` ended the path, so that the databases of Prefect and MLflow were one file, above the workspace."""
    folder = tmp_path / name
    folder.mkdir()
    with create_engine(sqlite_url(folder / "x.db")).connect() as connection:
        connection.execute(text("create table t (a int)"))
    assert os.listdir(tmp_path) == [name]
    assert os.listdir(folder) == ["x.db"]


@pytest.mark.slow
def test_mlflow_keeps_database_and_artifacts_in_a_folder_of_any_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a `file:` URI without a driver, MLflow makes a folder `file:` in the current one."""
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "is it 100%3F? #1"
    folder.mkdir()
    client = MlflowClient(sqlite_url(folder / "mlflow.db"))
    experiment = client.create_experiment("x", artifact_location=(folder / "mlartifacts").as_uri())
    run_id = client.create_run(experiment).info.run_id
    client.log_text(run_id, "kept", "note.txt")
    assert os.listdir(tmp_path) == [folder.name]
    assert sorted(os.listdir(folder)) == ["mlartifacts", "mlflow.db"]
    [note] = folder.rglob("note.txt")
    assert note.read_text() == "kept"
