"""Versions that a result depends on."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("regroup", "torch", "transformers", "trl")


def versions() -> dict[str, str]:
    """What the bits of a result depend on besides configuration and inputs."""
    import torch  # a run can be told of without it

    packages = {name: version(name) for name in PACKAGES}
    return packages | {"python": platform.python_version(), "num_threads": str(torch.get_num_threads())}


def program_tags() -> dict[str, str]:
    """MLflow's own tags for where a run comes from."""
    tags = {"mlflow.source.name": "regroup", "mlflow.source.type": "LOCAL"}
    commit = git_commit()
    return tags | {"mlflow.source.git.commit": commit} if commit else tags


def git_commit() -> str | None:
    """The commit of our own code, or None where it is not a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()
