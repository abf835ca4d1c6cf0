"""Which MLflow server or database there is, and how to speak with it."""

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
    """`MLFLOW_TRACKING_URI` where it is set, otherwise the workspace's own database."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root.absolute() / 'mlflow.db'}"


def make_tracking_database(root: Path) -> None:
    """A new workspace gets its own database: the tables would make the first run wait."""
    if "MLFLOW_TRACKING_URI" in os.environ:
        return
    prepare_environment()
    from mlflow import MlflowClient

    MlflowClient(tracking_uri(root))


def prepare_environment() -> None:
    """No telemetry, and a tracking server that is away costs seconds, not minutes; what the user set stays."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def without_password(text: str) -> str:
    """The text with `name:password@` taken out of the addresses in it."""
    return re.sub(r"//[^/@\s]+@", "//", text)


def local_folder(artifact_uri: str) -> Path | None:
    """The folder behind a run's artifact address, or None where artifacts are elsewhere."""
    parts = urlparse(artifact_uri)
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") else None
