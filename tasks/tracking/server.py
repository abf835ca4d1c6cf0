"""Says where MLflow's server or database is, and sets up the environment for its client."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlparse

from configs.disk.sqlite import sqlite_url

OWN_DATABASE = "sqlite:///mlflow.db"
"""address of the workspace's own database, seen from the workspace"""
UPLOAD_TIMEOUT_S = 600
TRAINING_MODE = "workflowType=machine_learning"
"""in the address of a page of MLflow: shows training runs, where the page by default shows traces of applications"""

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT": str(UPLOAD_TIMEOUT_S),  # Azure's and Google's stores
    "AWS_MAX_ATTEMPTS": "2",
}
WHILE_UPLOADING = {"MLFLOW_HTTP_REQUEST_TIMEOUT": str(UPLOAD_TIMEOUT_S), "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
"""MLflow's client reads these at each request. What fails is tried again later, by us"""
_ours: set[str] = set()
"""names of the variables that the user has not set"""


def tracking_uri(root: Path) -> str:
    """`MLFLOW_TRACKING_URI` if it is set, otherwise the workspace's own SQLite database."""
    return os.environ.get("MLFLOW_TRACKING_URI") or own_database(root)


def own_database(root: Path) -> str:
    """The address of the workspace's own SQLite database."""
    return sqlite_url(root.absolute() / "mlflow.db")


def prepare_environment() -> None:
    """Switch off telemetry and shorten timeouts: an unreachable server costs seconds. What the user set stays."""
    for name, value in ENVIRONMENT.items():
        if name not in os.environ:
            os.environ[name] = value
            _ours.add(name)


@contextmanager
def uploading() -> Iterator[None]:
    """Inside the block a request may take as long as a large file takes, unless the user has set a limit."""
    changed = {
        name: value
        for name, value in WHILE_UPLOADING.items()
        if name in _ours and os.environ[name] == ENVIRONMENT[name]
    }
    os.environ.update(changed)
    try:
        yield
    finally:
        os.environ.update({name: ENVIRONMENT[name] for name in changed})


EXTRAS = {"boto3": "regroup[s3]", "botocore": "regroup[s3]", "psycopg2": "regroup[postgres]"}
"""packages that MLflow's client asks for, by what installs them"""
OTHER_PACKAGES = {"google": "google-cloud-storage", "azure": "azure-storage-blob azure-identity"}


def in_words(error: BaseException) -> str:
    """The first line of an error, without passwords; with the remedy where a package is missing."""
    line = without_password(str(error).partition("\n")[0])[:500] or type(error).__name__
    missing = next((cause for cause in _causes(error) if isinstance(cause, ModuleNotFoundError)), None)
    if missing is None or missing.name is None:
        return line
    package = missing.name.partition(".")[0]
    return f"{line}: pip install '{EXTRAS.get(package) or OTHER_PACKAGES.get(package, package)}'"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def without_password(text: str) -> str:
    """`text` without the `name:password@` of the URLs in it."""
    return re.sub(r"//[^/@\s]+@", "//", text)


def local_folder(artifact_uri: str) -> Path | None:
    """The folder behind a run's artifact URI, or None if artifacts are not in local files."""
    parts = urlparse(artifact_uri)
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") else None
