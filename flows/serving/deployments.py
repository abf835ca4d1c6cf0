"""The deployment of a workspace on a Prefect server, which other workspaces may use too."""

from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import ObjectNotFound

from flows.serving.workspaces import Workspace

PARAMETER = "workspace"
"""the flow's parameter that holds the workspace"""


def deployment_name(run_name: str, workspace: Workspace) -> str:
    """`<run>-<id of the workspace>`: a name that no other workspace registers, whoever starts at the same moment."""
    return f"{run_name}-{workspace.id}"


def left_by_an_earlier_version(flow_name: str, run_name: str) -> str | None:
    """The deployment `<flow>/<run>`, as earlier versions called it, if its schedule is still active."""
    name = f"{flow_name}/{run_name}"
    try:
        with _client() as client:
            found: Any = client.read_deployment_by_name(name)
    except ObjectNotFound:
        return None
    return name if PARAMETER not in found.parameters and not found.paused else None


def _client() -> SyncPrefectClient:
    return get_client(sync_client=True)
