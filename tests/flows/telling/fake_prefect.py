"""A server that answers as Prefect's does to what is told, in milliseconds; it can be stopped, and come back."""

from __future__ import annotations

import json
import threading
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prefect import __version__

from flows.prefect_server import free_port
from flows.telling.messages import EVENTS

Object = dict[str, Any]


@dataclass
class FakePrefect:
    """What the server was told stays when it is stopped, as in a database."""

    port: int = field(default_factory=free_port)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    """(method, path, body) of all that changes something"""
    objects: dict[str, Object] = field(default_factory=dict)
    fails_at: dict[str, int] = field(default_factory=dict)
    """{part of a path: status}"""
    server: ThreadingHTTPServer | None = None

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    def start(self) -> None:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.reply("")

            def do_POST(self) -> None:
                self.reply(self.rfile.read(int(self.headers["Content-Length"])).decode())

            do_PATCH = do_POST

            def reply(self, body: str) -> None:
                status, answer = fake.answer(self.command, self.path.removeprefix("/api"), body)
                content = b"" if answer is None else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                with suppress(ConnectionError):  # whoever asked may be gone
                    self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                """Nothing is printed."""

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None

    def answer(self, method: str, path: str, body: str) -> tuple[int, Any]:
        for part, status in self.fails_at.items():
            if part in path:
                return status, {"detail": "as the test asked for"}
        if method == "GET":
            return self.read(path)
        self.requests.append((method, path, body))
        told = json.loads(body)
        if path == "/flow_runs/" and f"/flows/{told.get('flow_id')}" not in self.objects | {"/flows/None": {}}:
            return 409, {"detail": "Data integrity conflict"}
        if path in ("/flows/", "/flow_runs/", "/task_runs/", "/artifacts/"):
            return self.create(path, told)
        if path.endswith("/set_state"):
            run = self.objects[path.removesuffix("/set_state")]
            run.update(state=stamped(told["state"]), state_type=told["state"]["type"])
            return 201, {"state": run["state"], "status": "ACCEPT", "details": {"type": "accept_details"}}
        if path.endswith("/filter"):
            return 200, [
                run for address, run in self.objects.items() if address.startswith(path.removesuffix("filter"))
            ]
        if method == "PATCH":
            self.objects[path].update(told)
        return 204, None

    def read(self, path: str) -> tuple[int, Any]:
        if path in self.objects:
            return 200, self.objects[path]
        known = {"/admin/version": __version__, "/ready": "ready", "/health": True}
        return (200, known[path]) if path in known else (404, {"detail": "not found"})

    def create(self, path: str, told: Object) -> tuple[int, Object]:
        same = [made for at, made in self.objects.items() if at.startswith(path) and _is_same(path, made, told)]
        if same:
            return 200, same[0]
        made = {"created": NOW, "updated": NOW, **told, "id": told.get("id") or str(uuid.uuid4())}
        if "state" in told:
            made |= {"state": stamped(told["state"]), "state_type": told["state"]["type"]}
        made["name"] = made.get("name") or "a-name"
        self.objects[f"{path}{made['id']}"] = made
        return 201, made

    def flow_runs(self) -> list[Object]:
        return [run for path, run in self.objects.items() if path.startswith("/flow_runs/")]

    def states(self) -> dict[str, str]:
        """{name of a flow run: its state}"""
        return {run["name"]: run["state_type"] for run in self.flow_runs()}

    def events(self) -> list[Object]:
        """Each once, as Prefect has them, which knows them by their ids."""
        told = [event for _, path, body in self.requests if path == EVENTS for event in json.loads(body)]
        return list({event["id"]: event for event in told}.values())


NOW = "2026-11-01T02:00:00+00:00"


def stamped(state: Object) -> Object:
    return {**state, "id": str(uuid.uuid4()), "timestamp": NOW}


def _is_same(path: str, made: Object, told: Object) -> bool:
    key = "name" if path == "/flows/" else "idempotency_key"
    return told.get(key) is not None and made.get(key) == told[key]
