"""Says where MLflow's server or database is, and sets up the environment for its client."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlparse

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


def tracking_uri(root: Path) -> str:
    """`MLFLOW_TRACKING_URI` if it is set, otherwise the workspace's own SQLite database."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root.absolute() / 'mlflow.db'}"


def make_tracking_database(root: Path) -> None:
    """Create a new workspace's database ahead of the first run, which would have to wait for its tables."""
    if "MLFLOW_TRACKING_URI" in os.environ:
        return
    prepare_environment()
    from mlflow import MlflowClient

    MlflowClient(tracking_uri(root))


def prepare_environment() -> None:
    """Switch off telemetry and shorten timeouts: an unreachable server costs seconds. What the user set stays."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def without_password(text: str) -> str:
    """`text` without the `name:password@` of the URLs in it."""
    return re.sub(r"//[^/@\s]+@", "//", text)


def local_folder(artifact_uri: str) -> Path | None:
    """The folder behind a run's artifact URI, or None if artifacts are not in local files."""
    parts = urlparse(artifact_uri)
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") else None
