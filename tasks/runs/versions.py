"""Versions of Python, packages and our own code that a result depends on."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("regroup", "torch", "transformers", "trl")


def versions() -> dict[str, str]:
    """Versions and number of threads, which together with configuration and inputs determine a result."""
    import torch  # slow to import, and most callers of this module do not need it

    packages = {name: version(name) for name in PACKAGES}
    return packages | {"python": platform.python_version(), "num_threads": str(torch.get_num_threads())}


def program_tags() -> dict[str, str]:
    """MLflow's own tags for the program and the commit that made a run."""
    tags = {"mlflow.source.name": "regroup", "mlflow.source.type": "LOCAL"}
    commit = git_commit()
    return tags | {"mlflow.source.git.commit": commit} if commit else tags


def git_commit() -> str | None:
    """The commit of our own code, or None if it is not in a git checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()
