"""What Prefect is told: requests to its API that can wait."""

import re
from collections.abc import Mapping

from configs.records import Record

SERVER_ERROR = 500
EVENTS = "/events"
"""the path of the API that takes events"""
FINAL = frozenset({"COMPLETED", "FAILED", "CANCELLED", "CRASHED"})
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class Away(Exception):
    """Prefect's server does not answer, or cannot take a message now."""


class Refused(Exception):
    """Prefect's server answers and does not take this message."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class Message(Record):
    """A request to Prefect's API whose answer nobody waits for."""

    method: str
    path: str
    body: str
    """JSON"""
    own_id: str | None = None
    """the id under which this process knows what the request creates, before the server gives it another"""
    can_be_lost: bool = False
    """whether it may be dropped where too many wait: a line of a log, a sign of life"""
    at_s: float = 0.0
    """time of writing, in seconds since 1970"""

    def with_ids(self, ids: Mapping[str, str]) -> "Message":
        """The message with the ids that the server gave, of those that it has given so far."""
        return self.model_copy(update={"path": with_ids(self.path, ids), "body": with_ids(self.body, ids)})


def with_ids(text: str, ids: Mapping[str, str]) -> str:
    """The text with each of these ids replaced by the other."""
    return _UUID.sub(lambda found: ids.get(found[0], found[0]), text)
