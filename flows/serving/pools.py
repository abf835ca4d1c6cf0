"""The deployment of a workspace on a work pool of Prefect, whose workers start the runs: in processes, containers or pods.

A worker's process finds the workspace by the flow's parameter `workspace`: it is the current folder, or the folder of that path,
if that has the workspace's id. It is not started there: Prefect puts the folder in which its process starts before Python's own modules,
whatever PYTHONSAFEPATH says, so a file `random.py` of the user's would be taken for Python's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from configs.errors import ConfigError
from tasks.running.safe_path import with_safe_path

TYPES = ("process", "docker", "kubernetes")


class Pool(Protocol):
    """What is looked at of a pool of Prefect."""

    name: str
    type: str
    base_job_template: dict[str, Any]


def read_pool(name: str) -> Pool:
    """The work pool of that name.

    Raises:
        ConfigError: there is none, or it is of a type that is not known here.
    """
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            pool: Pool = client.read_work_pool(name)
        except ObjectNotFound as error:
            known = ", ".join(sorted(found.name for found in client.read_work_pools())) or "none"
            raise ConfigError(
                f"--pool {name!r} is no work pool of this server; pools there: {known}; make one by "
                f"`prefect work-pool create {name} --type process`"
            ) from error
    if pool.type not in TYPES:
        raise ConfigError(f"--pool {name!r} is of type {pool.type!r}; {', '.join(TYPES)} are known")
    return pool


def job_variables(pool: Pool, root: Path, settings: dict[str, str]) -> dict[str, Any]:
    """What a job of the pool is given, of what its template takes; `settings` are variables of its environment.

    Nothing secret is among it, since Prefect's server shows it: addresses with passwords belong into the worker's environment.

    Raises:
        ConfigError: the template leaves no way to the workspace.
    """
    taken = pool.base_job_template.get("variables", {}).get("properties", {})
    wanted: dict[str, Any] = {"env": settings | with_safe_path()}
    if pool.type == "docker":
        own = taken.get("volumes", {}).get("default") or []
        wanted["volumes"] = [*own, f"{root}:{root}"]
    if missing := sorted(wanted.keys() - taken.keys()):
        raise ConfigError(f"--pool {pool.name!r}: its base job template has no variables {missing}; add them to it")
    return wanted
