"""Makes MLflow's database, and looks at one before MLflow opens it.

MLflow makes and migrates tables in the database that it opens, in steps of which a kill leaves half, and never again
opens such a half. So the workspace's own database is made under a temporary name and renamed; a half-made one that
holds nothing is moved aside; and one of another version of MLflow is left alone, for its owner to decide.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import psutil

from configs.disk.making import making_alone
from configs.disk.sqlite import sqlite_url
from configs.errors import ConfigError
from tasks.tracking.artifact_places import follow_workspace
from tasks.tracking.server import prepare_environment, without_password

if TYPE_CHECKING:
    from sqlalchemy import Engine

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
"""how the addresses of databases begin that MLflow opens itself; the tables behind a server are the server's"""
MADE_ALONE = {"experiments": 1, "workspaces": 1, "alembic_version": 1}
"""number of rows that MLflow itself writes to a new database, by table"""
PATIENCE_S = 120
"""how long another process may take to make the tables"""
SIDE_FILES = ("-journal", "-wal", "-shm")


def make_ready(uri: str, warn: Callable[[str], None]) -> None:
    """Make sure that MLflow can open `uri` as it is: make a SQLite file that is missing or half-made, else look at it, and
    let one that was moved with its workspace say where its artifacts are.

    Raises:
        ConfigError: the database is of another version of MLflow, or broken; the message has the remedy.
    """
    if not uri.startswith(DATABASES):
        return
    prepare_environment()
    if (path := _sqlite_file(uri)) is None:
        _refuse_other_version(uri)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with making_alone(path.parent):
        if path.exists() and path.stat().st_size > 0:
            if not _is_half_made(uri, path):
                _refuse_other_version(uri)
                follow_workspace(path)
                return
            warn(f"{path} was half-made, by a process that was killed, and held nothing; it is now {_move_aside(path)}")
        _make(path)


def _sqlite_file(uri: str) -> Path | None:
    """The file of a SQLite database; None if the database is of another kind or in memory."""
    from sqlalchemy import make_url

    url = make_url(uri)
    in_file = url.get_backend_name() == "sqlite" and url.database and url.database != ":memory:"
    if not in_file:
        return None
    file = str(url.database)
    return Path(unquote(file.removeprefix("file:")) if "uri" in url.query else file)


# ---- making a SQLite file -------------------------------------------------------------------------------------------


def _make(path: Path) -> None:
    """Make the tables under a temporary name, then give the file its name."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    unfinished = path.with_name(f".{path.name}.making")
    for left in (unfinished, *_beside(unfinished)):
        left.unlink(missing_ok=True)
    store = SqlAlchemyStore(  # type: ignore[no-untyped-call]
        sqlite_url(unfinished.absolute()), str(path.absolute().parent / "mlruns")
    )
    store.engine.dispose()
    unfinished.rename(path)


def _beside(path: Path) -> list[Path]:
    return [path.with_name(path.name + ending) for ending in SIDE_FILES]


def _move_aside(path: Path) -> str:
    """Give the database, and what SQLite keeps beside it, another name, which is returned."""
    aside = path.with_name(f"{path.name}.half-made-{time.strftime('%Y%m%d-%H%M%S')}")
    for source, target in zip((path, *_beside(path)), (aside, *_beside(aside)), strict=True):
        if source.exists():
            source.rename(target)
    return aside.name


# ---- looking at a database ------------------------------------------------------------------------------------------


def _is_half_made(uri: str, path: Path) -> bool:
    """Whether tables are missing and none holds anything, once no other process has the file open any more."""
    deadline = time.monotonic() + PATIENCE_S
    while half := _is_incomplete_and_empty(uri):
        if not _is_open_elsewhere(path) or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    return half


def _is_incomplete_and_empty(uri: str) -> bool:
    with _engine(uri) as engine:
        current, newest, known = _revisions(engine)
        return current != newest and (current is None or current in known) and not _holds_anything(engine)


def _is_open_elsewhere(path: Path) -> bool:
    """Whether another process that we may look into has the file open."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and any(file.path == str(path.resolve()) for file in process.open_files()):
                return True
    return False


def _holds_anything(engine: Engine) -> bool:
    """Whether a table has more rows than MLflow writes to a new database."""
    import sqlalchemy as sql

    with engine.connect() as connection:
        for table in sql.inspect(connection).get_table_names():
            num_rows = connection.execute(sql.select(sql.func.count()).select_from(sql.table(table))).scalar_one()
            if num_rows > MADE_ALONE.get(table, 0):
                return True
    return False


def _refuse_other_version(uri: str) -> None:
    """Raise ConfigError if MLflow would migrate the database, or cannot read it; a new one is fine."""
    import mlflow
    import sqlalchemy as sql

    with _engine(uri) as engine:
        current, newest, known = _revisions(engine)
        if current == newest or not sql.inspect(engine).get_table_names():
            return
    shown = without_password(uri)
    if current is None:
        raise ConfigError(
            f"{shown} holds tables, but is no whole database of MLflow's; restore it from a backup, or move it away"
        )
    if current not in known:
        raise ConfigError(
            f"{shown} was made or migrated by a newer MLflow than the installed {mlflow.__version__} "
            f"(its schema is {current}); install that version, or restore the backup from before its migration"
        )
    raise ConfigError(
        f"{shown} is of an older MLflow (its schema is {current}), which cannot read it any more once {mlflow.__version__} "
        f"has migrated it; back it up, then run `mlflow db upgrade {shown}`, or install the MLflow that made it"
    )


def _revisions(engine: Engine) -> tuple[str | None, str, set[str]]:
    """The revision of the database's schema, that of the installed MLflow, and all that it can migrate."""
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from mlflow.store import db_migrations

    scripts = ScriptDirectory(str(Path(next(iter(db_migrations.__path__)))))
    with engine.connect() as connection:
        heads = MigrationContext.configure(connection).get_current_heads()
    newest = scripts.get_current_head()
    assert newest is not None
    return next(iter(heads), None), newest, {script.revision for script in scripts.walk_revisions()}


@contextmanager
def _engine(uri: str) -> Iterator[Engine]:
    import sqlalchemy as sql

    engine = sql.create_engine(uri, poolclass=sql.pool.NullPool)
    try:
        yield engine
    finally:
        engine.dispose()
