"""A deployment is of one workspace."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.exceptions import ObjectNotFound

from flows.serving import deployments
from flows.serving.deployments import deployment_name, left_by_an_earlier_version
from flows.serving.workspaces import Workspace

OURS = Workspace(id="0a1b2c", path="/data/ours", host="here")
THEIRS = Workspace(id="ffffff", path="/data/theirs", host="here")


class Server:
    """A Prefect server with one deployment `align-next/math`, or none."""

    def __init__(self, deployment: SimpleNamespace | None) -> None:
        self.deployment = deployment

    def read_deployment_by_name(self, name: str) -> Any:
        if self.deployment is None or name != "align-next/math":
            raise ObjectNotFound(KeyError(name))
        return self.deployment


def test_two_workspaces_never_have_one_name() -> None:
    """Whoever looks at the server first can be overtaken by another that starts at the same moment."""
    assert deployment_name("math", OURS) == "math-0a1b2c"
    assert deployment_name("math", OURS.model_copy(update={"path": "/moved"})) == "math-0a1b2c"
    assert deployment_name("math", THEIRS) == "math-ffffff"


@pytest.mark.parametrize(
    ("deployment", "is_left"),
    [
        (None, False),
        (SimpleNamespace(parameters={"config": {}}, paused=False), True),
        (SimpleNamespace(parameters={"config": {}}, paused=True), False),
        (SimpleNamespace(parameters={"config": {}, "workspace": THEIRS.model_dump()}, paused=False), False),
    ],
)
def test_an_active_schedule_of_an_earlier_version_is_found(
    monkeypatch: pytest.MonkeyPatch, deployment: SimpleNamespace | None, is_left: bool
) -> None:
    monkeypatch.setattr(deployments, "_client", lambda: nullcontext(Server(deployment)))
    assert left_by_an_earlier_version("align-next", "math") == ("align-next/math" if is_left else None)
