"""What processes left behind that ended before Prefect knew all of it: by SIGKILL, or while its server was away.

While a process works on a flow run, a file of that flow run's id names the process. If the file is still there when the
process is gone, the flow run did not come to its end in Prefect. The next process in the workspace delivers what the file
says that Prefect lacks, and marks as crashed what is still running then.
"""

import time
from pathlib import Path

from pydantic import Field

from configs.disk.files import write_json
from configs.records import Record
from flows.prefect_server import find_process
from flows.telling.messages import Message


class Leftover(Record):
    """The file of a flow run."""

    flow_run: str
    run: str
    """name of the flow run, for people"""
    api_url: str
    owner: dict[str, float]
    """the process that works, or worked, on it"""
    messages: list[Message] = Field(default_factory=list)
    """what Prefect lacks, once the process has ended"""


def keep(root: Path, leftover: Leftover) -> None:
    path = file_of(root, leftover.flow_run)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, leftover.model_dump(mode="json"))


def forget(root: Path, leftover: Leftover) -> None:
    file_of(root, leftover.flow_run).unlink(missing_ok=True)


def of_ended_processes(root: Path) -> list[Leftover]:
    return [leftover for leftover in _leftovers(root) if find_process(leftover.owner) is None]


def what_prefect_lacks(root: Path) -> str | None:
    """A line about the flow runs that Prefect could not be told the end of; None if it knows all."""
    lacking = [leftover for leftover in _leftovers(root) if leftover.messages]
    if not lacking:
        return None
    runs, urls = ({getattr(leftover, name) for leftover in lacking} for name in ("run", "api_url"))
    return f"{', '.join(sorted(urls))} lacks the end of {', '.join(sorted(runs))}; the next run in this folder tells it"


def age_s(root: Path, leftover: Leftover) -> float:
    """Seconds since the file was last written."""
    return time.time() - file_of(root, leftover.flow_run).stat().st_mtime


def _leftovers(root: Path) -> list[Leftover]:
    found = []
    for path in sorted(_folder(root).glob("*.json")):
        try:
            found.append(Leftover.model_validate_json(path.read_bytes()))
        except (FileNotFoundError, ValueError):  # its process has just ended, or it is another version's
            continue
    return found


def file_of(root: Path, flow_run: str) -> Path:
    return _folder(root) / f"{flow_run}.json"


def _folder(root: Path) -> Path:
    return root / ".prefect" / "flow-runs"
