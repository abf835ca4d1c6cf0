import sqlite3
from pathlib import Path

import pytest

from tasks.tracking.database import make_ready
from tasks.tracking.server import local_folder, tracking_uri, without_password


def test_a_new_workspace_gets_a_database_with_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    make_ready(tracking_uri(tmp_path), pytest.fail)
    database = sqlite3.connect(tmp_path / "mlflow.db")
    assert database.execute("select count(*) from runs").fetchone() == (0,)
    database.close()
    make_ready(tracking_uri(tmp_path), pytest.fail)


def test_a_server_that_is_named_makes_a_database_needless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    make_ready(tracking_uri(tmp_path), pytest.fail)
    assert not list(tmp_path.iterdir())
    assert tracking_uri(tmp_path) == "http://127.0.0.1:9"


def test_a_password_is_not_shown() -> None:
    assert without_password("cannot reach https://ann:secret@host/x") == "cannot reach https://host/x"


@pytest.mark.parametrize(
    ("uri", "folder"),
    [
        ("file:///a/b%20c", Path("/a/b c")),
        ("/a/b", Path("/a/b")),
        ("s3://bucket/a", None),
        ("mlflow-artifacts:/a", None),
    ],
)
def test_artifacts_that_lie_in_a_folder(uri: str, folder: Path | None) -> None:
    assert local_folder(uri) == folder
