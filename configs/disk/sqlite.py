"""Addresses of SQLite databases."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote


def sqlite_url(path: Path, driver: str = "pysqlite") -> str:
    """SQLAlchemy's URL of the database at an absolute path, for instance `sqlite:////data/mlflow.db`.

    A `?` ends the path of a URL, so a path that has one is written as a `file:` URI; and then with its driver, or MLflow would
    take that for a folder `file:` and make it.
    """
    if "?" in str(path):
        return f"sqlite+{driver}:///file:{quote(str(path))}?uri=true"
    return f"sqlite{'' if driver == 'pysqlite' else '+' + driver}:///{path}"
