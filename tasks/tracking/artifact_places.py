"""Lets a workspace's own database of MLflow, which was moved or copied with its folder, say where the artifacts are now.

MLflow writes the whole path of its folder of artifacts into an experiment and into each run, and knows no relative one.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlparse

ARTIFACTS, UNUSED = "mlartifacts", "mlruns"
"""folders beside the database: the artifacts of our experiments, and that of MLflow's default experiment, which stays empty"""
COLUMNS = {
    "experiments": "artifact_location",
    "runs": "artifact_uri",
    "logged_models": "artifact_location",
    "model_versions": "storage_location",
    "trace_tags": "value",
}


def follow_workspace(database: Path) -> None:
    """Change the places of artifacts that came along with the database; others, as on another disk, stay.

    Nothing is changed while the database cannot be written to: then what is there can be looked at alone.
    """
    folder = database.absolute().parent
    if not os.access(database, os.W_OK) or not os.access(folder, os.W_OK):
        return
    with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        for old in list(_left_behind(connection, folder)):
            _replace(connection, (old / ARTIFACTS).as_uri(), (folder / ARTIFACTS).as_uri())
            _replace(connection, str(old / UNUSED), str(folder / UNUSED))


def _left_behind(connection: sqlite3.Connection, folder: Path) -> Iterator[Path]:
    """The folders that the database was in before, by the experiments whose artifacts are no longer there."""
    experiments = connection.execute(
        "SELECT experiment_id, artifact_location FROM experiments WHERE artifact_location LIKE 'file:%'"
    )
    for experiment_id, location in experiments.fetchall():
        place = Path(unquote(urlparse(location).path))
        if place.name == ARTIFACTS and place.parent != folder:
            runs = connection.execute("SELECT run_uuid FROM runs WHERE experiment_id = ?", [experiment_id]).fetchall()
            came_along = any((folder / ARTIFACTS / run_id).exists() for (run_id,) in runs)
            if came_along or not place.parent.exists():
                yield place.parent


def _replace(connection: sqlite3.Connection, old: str, new: str) -> None:
    """Put `new` in the place of `old` wherever a location is that or begins with it."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    for table in COLUMNS.keys() & tables:
        column = COLUMNS[table]
        connection.execute(
            f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR substr({column}, 1, ?) = ?",
            [new, len(old) + 1, old, len(old) + 1, f"{old}/"],
        )
