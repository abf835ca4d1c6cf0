"""A fake chat endpoint on the loopback address that replies with what a test gives it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any


@dataclass
class JudgeServer:
    """`reply(messages, number of earlier requests)` returns the reply's text, or (status, body)."""

    reply: Callable[[list[dict[str, str]], int], str | tuple[int, str]]
    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)

    def answer(self, request: dict[str, Any], key: str | None) -> tuple[int, str]:
        with self.lock:
            number = len(self.requests)
            self.requests.append(request)
            self.keys.append(key)
        reply = self.reply(request["messages"], number)
        return reply if isinstance(reply, tuple) else (200, completion(reply))


def completion(text: str) -> str:
    return json.dumps(
        {
            "id": "x", "object": "chat.completion", "created": 0, "model": "m",
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
        }
    )  # fmt: skip


@contextmanager
def judge_server(reply: Callable[[list[dict[str, str]], int], str | tuple[int, str]]) -> Iterator[JudgeServer]:
    judge = JudgeServer(reply)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, body = judge.answer(request, self.headers.get("Authorization"))
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                with suppress(ConnectionError):  # whoever asked may be gone
                    self.wfile.write(body.encode())
            except BrokenPipeError:
                pass  # the client did not wait

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    judge.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield judge
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
