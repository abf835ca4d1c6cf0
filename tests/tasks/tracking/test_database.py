"""MLflow's database is made whole or not at all, and one of another version of MLflow is left as it is."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path

import mlflow
import pytest
import sqlalchemy
from mlflow import MlflowClient
from mlflow.store.tracking.dbmodels.initial_models import Base

from configs.disk.sqlite import sqlite_url
from configs.errors import ConfigError
from tasks.tracking.database import make_ready
from tests.tasks.running.kills import in_child
from tests.tasks.stage_kit import open_in
from tests.tasks.tracking.kit import policy_stage


def uri_of(root: Path) -> str:
    return sqlite_url(root / "mlflow.db")


def set_revision(root: Path, revision: str | None) -> None:
    with sqlite3.connect(root / "mlflow.db") as database:
        database.execute("delete from alembic_version")
        if revision is not None:
            database.execute("insert into alembic_version values (?)", (revision,))


def revision(root: Path) -> str:
    with sqlite3.connect(root / "mlflow.db") as database:
        return str(database.execute("select version_num from alembic_version").fetchone()[0])


def half_made(root: Path) -> None:
    """The tables that MLflow makes first, as a kill leaves them."""
    engine = sqlalchemy.create_engine(uri_of(root))
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("create table issues (id integer)"))
    engine.dispose()


def assert_whole(root: Path) -> None:
    make_ready(uri_of(root), pytest.fail)
    experiments = MlflowClient(uri_of(root)).search_experiments()
    assert [experiment.name for experiment in experiments] == ["Default"]


@pytest.mark.parametrize("name", ["plain", "a b?c=1#d%20"])
def test_a_half_made_database_is_moved_aside_and_made_again(tmp_path: Path, name: str) -> None:
    """MLflow itself says `table issues already exists` to it, for good."""
    root = tmp_path / name
    root.mkdir()
    half_made(root)
    warnings: list[str] = []
    make_ready(uri_of(root), warnings.append)
    [aside] = root.glob("mlflow.db.half-made-*")
    assert len(warnings) == 1
    assert aside.name in warnings[0]
    with sqlite3.connect(aside) as database:
        assert database.execute("select count(*) from issues").fetchone() == (0,)
    assert_whole(root)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_half_made_database_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    half_made(tmp_path)
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("insert into issues values (1)")
    before = (tmp_path / "mlflow.db").read_bytes()
    with pytest.raises(ConfigError, match="no whole database of MLflow's; restore it from a backup"):
        make_ready(uri_of(tmp_path), pytest.fail)
    assert (tmp_path / "mlflow.db").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


@pytest.mark.parametrize("older", ["76601a5f987d", "451aebb31d03"])
def test_a_database_that_mlflow_would_migrate_is_refused_with_the_remedy(root: Path, older: str) -> None:
    MlflowClient(uri_of(root)).create_experiment("mine")
    set_revision(root, older)
    with pytest.raises(ConfigError, match=r"back it up, then run `mlflow db upgrade sqlite:///.*mlflow.db`"):
        make_ready(uri_of(root), pytest.fail)
    assert revision(root) == older


def test_a_database_of_a_newer_mlflow_is_refused_by_name(root: Path) -> None:
    MlflowClient(uri_of(root)).create_experiment("mine")
    set_revision(root, "f00dfeedbeef")
    with pytest.raises(ConfigError, match=f"by a newer MLflow than the installed {mlflow.__version__}"):
        make_ready(uri_of(root), pytest.fail)


def test_a_run_goes_on_beside_a_database_of_another_version_and_does_not_migrate_it(root: Path) -> None:
    MlflowClient(uri_of(root)).create_experiment("mine")
    set_revision(root, "451aebb31d03")
    warnings: list[str] = []
    run = open_in(root, warnings=warnings)
    run.tracking.start()
    policy_stage(run)
    run.tracking.finish("FINISHED")
    assert len(warnings) == 1
    assert "mlflow db upgrade" in warnings[0]
    assert revision(root) == "451aebb31d03"
    assert str(run.tracking.lack) == "2 runs, 6 values of metrics, 8 files and 1 registered model of run tiny"


def test_an_empty_file_is_made_a_database(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    make_ready(uri_of(tmp_path), pytest.fail)
    assert_whole(tmp_path)


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "databricks", "file:///nowhere/mlruns", "./mlruns"])
def test_what_is_no_database_is_not_looked_at(uri: str) -> None:
    make_ready(uri, pytest.fail)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("maker", ["ours", "mlflow"])
def test_killed_at_any_moment_in_an_empty_folder(tmp_path: Path, maker: str) -> None:
    """Ours leaves no file of that name; MLflow's own leaves half of one, which is found."""
    make: dict[str, Callable[[str], object]] = {
        "ours": lambda uri: make_ready(uri, pytest.fail),
        "mlflow": MlflowClient,
    }
    for tenth in range(0, 30, 4):
        folder = tmp_path / f"{tenth}"
        folder.mkdir()
        in_child(partial(make[maker], uri_of(folder)), kill_after_s=0.1 + tenth / 10)
        make_ready(uri_of(folder), lambda _: None)
        assert_whole(folder)
        shutil.rmtree(folder)
