"""Which workspace a deployment is of.

A workspace has an id in `.prefect/workspace.json`, so a folder that was moved keeps its deployment, with the runs that it had. A copy of a folder is a
workspace of its own.
"""

import socket
import uuid
from pathlib import Path

from pydantic import ValidationError

from configs.disk.files import write_json
from configs.errors import ConfigError
from configs.records import Record

FILE = Path(".prefect") / "workspace.json"


class Workspace(Record):
    """The folder that a deployment's runs work in."""

    id: str
    path: str
    host: str

    def is_same(self, other: "Workspace") -> bool:
        """Whether both are one folder, also if its id was lost with `.prefect`."""
        return self.id == other.id or (self.path, self.host) == (other.path, other.host)


def workspace_at(root: Path) -> Workspace:
    """The workspace in a folder; it gets its id at the first call."""
    here = Workspace(id=uuid.uuid4().hex[:6], path=str(root.resolve()), host=socket.gethostname())
    stored = _stored(root)
    if stored is not None and not _is_copy(stored, here):
        here = here.model_copy(update={"id": stored.id})
    if stored != here:
        write_json(root / FILE, here.model_dump())
    return here


def found(workspace: Workspace, here: Path) -> Path:
    """The folder of a workspace on this machine: `here`, as in a container that mounts it as its current folder, or its path.

    Raises:
        ConfigError: neither has the workspace's id.
    """
    for folder in (here, Path(workspace.path)):
        stored = _stored(folder)
        if stored is not None and stored.id == workspace.id:
            return folder
    raise ConfigError(
        f"the workspace {workspace.id} of {workspace.path} on {workspace.host} is neither there on this machine nor the current folder "
        f"{here}; mount it at one of them"
    )


def _is_copy(stored: Workspace, here: Workspace) -> bool:
    """Whether the folder that the id was made for is still there, so that this one is a copy of it."""
    if stored.path == here.path:
        return False
    original = _stored(Path(stored.path))
    return original is not None and original.id == stored.id


def _stored(root: Path) -> Workspace | None:
    try:
        return Workspace.model_validate_json((root / FILE).read_bytes())
    except (FileNotFoundError, NotADirectoryError, PermissionError, ValidationError):
        return None
