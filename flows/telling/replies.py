"""What Prefect's client hears at once to what it tells, in the place of the server's answer, which comes later or never.

Of the flow runs, task runs and flows that this process creates it knows all that Prefect's engine asks for. A flow run gets
an id of its own here; the server gives it another one, which the messenger puts in its place.
"""

import json
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from flows.telling.messages import Message

OK, CREATED, NO_CONTENT = 200, 201, 204
Object = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """The status and the JSON of an answer, None where it has no content, and the message that the server gets."""

    status: int
    content: Any = None
    message: Message | None = None


class Replies:
    """Answers of one process, which remembers what it created."""

    def __init__(self) -> None:
        self._known: dict[str, Object] = {}
        """{path: object}: what this process created, and what it has read"""
        self._flows: dict[str, str] = {}
        """{name of a flow: its own id}"""

    def reply(self, method: str, path: str, body: str) -> Reply | None:
        """The answer to a request, None where only the server knows it."""
        match method, path.strip("/").split("/"):
            case "GET", ["flow_runs" | "flows" | "task_runs", _] if not self.is_paused(path):
                return self.recall(path)
            case "POST", ["flows"]:
                return self._flow(path, body)
            case "POST", ["flow_runs", "filter"]:
                return self._subflow_of_a_new_task_run(body)
            case "POST", ["flow_runs"] if json.loads(body).get("parent_task_run_id"):
                return self._flow_run(path, body)
            case "POST", ["task_runs" | "artifacts"]:
                return self._created(path, body)
            case "POST", ["flow_runs", flow_run_id, "set_state"]:
                return self._state(f"/flow_runs/{flow_run_id}", path, body)
            case "PATCH", ["flow_runs", _] | ["flow_runs", _, "labels"]:
                self._known.get(path, {}).update(json.loads(body))
                return Reply(NO_CONTENT, None, message(method, path, body))
            case "POST", ["logs"] | ["v2", "concurrency_limits", "leases", _, "renew"]:
                return Reply(NO_CONTENT, None, message(method, path, body, can_be_lost=True))
        return None

    def recall(self, path: str) -> Reply | None:
        """What is known of the object at a path."""
        found = self._known.get(path)
        return None if found is None else Reply(OK, found)

    def remember(self, path: str, answer: Object) -> None:
        """Keep an answer of the server, to be given again while it is away."""
        self._known[path] = answer

    def is_paused(self, path: str) -> bool:
        """Whether the flow run at a path was paused, so that a person may have resumed it on Prefect's page."""
        state = self._known.get(path, {}).get("state") or {}
        return state.get("type") == "PAUSED"

    def _flow(self, path: str, body: str) -> Reply:
        name = json.loads(body)["name"]
        if name in self._flows:
            return Reply(OK, self._known[f"/flows/{self._flows[name]}"])
        reply = self._created(path, body)
        self._flows[name] = reply.content["id"]
        return reply

    def _flow_run(self, path: str, body: str) -> Reply:
        own_id = str(uuid.uuid4())
        told = json.loads(body) | {"idempotency_key": own_id}  # told twice, it is still one flow run
        return self._created(path, json.dumps(told), own_id, run_count=0)

    def _created(self, path: str, body: str, own_id: str | None = None, **more: Any) -> Reply:
        """A new object; a task run is told with its id, the server names the others."""
        told, own_id = json.loads(body), own_id or str(uuid.uuid4())
        if path.startswith("/task_runs"):
            own_id = str(told.setdefault("id", own_id))
        now = _now()
        known = {**told, **more, "id": own_id, "created": now, "updated": now}
        if "state" in told:
            _enter(known, told["state"])
        self._known[f"{path.rstrip('/')}/{own_id}"] = known
        is_referred_to = not path.startswith("/artifacts")
        return Reply(CREATED, known, message("POST", path, json.dumps(told), own_id=own_id if is_referred_to else None))

    def _state(self, run: str, path: str, body: str) -> Reply:
        state = _enter(self._known.get(run, {}), json.loads(body)["state"])
        answer = {"state": state, "status": "ACCEPT", "details": {"type": "accept_details"}}
        return Reply(CREATED, answer, message("POST", path, body))

    def _subflow_of_a_new_task_run(self, body: str) -> Reply | None:
        """None is there yet, where this process has just created the task run that stands for the subflow."""
        asked = (json.loads(body).get("flow_runs") or {}).get("parent_task_run_id") or {}
        ids = asked.get("any_") or []
        new = bool(ids) and all(f"/task_runs/{task_run_id}" in self._known for task_run_id in ids)
        return Reply(OK, []) if new else None


def _enter(run: Object, told: Object) -> Object:
    """The state as the server would return it; the run enters it."""
    state = {**told, "id": str(uuid.uuid4()), "timestamp": _now()}
    run.update(state=state, state_id=state["id"], state_type=state["type"], state_name=state["name"])
    if state["type"] == "RUNNING":
        run["run_count"] = run.get("run_count", 0) + 1
    return state


def message(method: str, path: str, body: str, *, own_id: str | None = None, can_be_lost: bool = False) -> Message:
    return Message(method=method, path=path, body=body, own_id=own_id, can_be_lost=can_be_lost, at_s=time.time())


def _now() -> str:
    return datetime.now(UTC).isoformat()
