"""A webhook on a loopback port, which does what a test tells it to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET = "T0/B0/kept-secret"


class Hook:
    """`messages` are the bodies that it took; `status` is what it answers, after `delay_s`."""

    def __init__(self, port: int = 0) -> None:
        self.messages: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.asked: list[str] = []
        self.status = 200
        self.delay_s = 0.0
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                hook.asked.append(self.command)
                time.sleep(hook.delay_s)
                if hook.status == 200:
                    hook.messages.append(body)
                    hook.keys.append(self.headers["Idempotency-Key"])
                self.send_response(hook.status)
                if hook.status == 302:
                    self.send_header("Location", "/elsewhere")
                self.end_headers()

            def do_GET(self) -> None:
                hook.asked.append(self.command)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_args: Any) -> None:
                """Tests read `asked`."""

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/services/{SECRET}"

    @property
    def events(self) -> list[str]:
        return [message["event"] for message in self.messages]


@contextmanager
def listening(port: int = 0) -> Iterator[Hook]:
    hook = Hook(port)
    thread = threading.Thread(target=hook.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hook
    finally:
        hook.server.shutdown()
        hook.server.server_close()


def until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
