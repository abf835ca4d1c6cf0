"""A server of a reward model on the loopback address that speaks as vLLM 0.32.0 does, and fails as a test tells it to.

The replies are those of a real server, with what stood in them where it matters here. tests/vllm/ tries a real one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer


@dataclass
class ScoringServer:
    """What it serves, and how it fails."""

    folder: Path
    """a sequence classifier with its tokenizer"""
    names: tuple[str, ...] = ("taste",)
    max_model_len: int | None = 256
    key: str | None = None
    has_tokenizer: bool = True
    appended: int = 0
    """tokens that it adds to each sequence, as a server with special tokens of its own does"""
    failing: int | None = None
    """status of every reply; None where it works"""
    failing_after: int | None = None
    """number of scored sequences after which it fails with `failing`"""
    sleep_s: float = 0.0
    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    """bodies of /classify"""
    lock: Lock = field(default_factory=Lock)

    def load(self, folder: Path) -> None:
        """Serve other weights from now on, under the same name."""
        with self.lock:
            self.folder = folder
            self._model = AutoModelForSequenceClassification.from_pretrained(str(folder)).eval()
            self._tokenizer = AutoTokenizer.from_pretrained(str(folder))

    def answer(self, path: str, body: dict[str, Any] | None, key: str | None) -> tuple[int, Any]:
        time.sleep(self.sleep_s)
        if self.failing is not None and (self.failing_after is None or len(self.asked) >= self.failing_after):
            return self.failing, {"error": {"message": "as told", "code": self.failing}}
        if path == "/health":
            return 200, None
        if self.key is not None and key != f"Bearer {self.key}":
            return 401, {"error": "Unauthorized"}
        if path == "/v1/models":
            return 200, {"object": "list", "data": [self._entry(name) for name in self.names]}
        if body is None or body.get("model") not in self.names:
            return 404, {"error": {"message": "The model does not exist.", "code": 404}}
        if path == "/tokenize" and self.has_tokenizer:
            ids = self._tokenizer(body["prompt"], add_special_tokens=body["add_special_tokens"])["input_ids"]
            return 200, {"count": len(ids), "max_model_len": self.max_model_len, "tokens": ids, "token_strs": None}
        if path == "/classify":
            return 200, self._classified(body)
        return 404, {"detail": "Not Found"}

    def _entry(self, name: str) -> dict[str, Any]:
        entry = {"id": name, "object": "model", "owned_by": "vllm", "root": str(self.folder), "parent": None}
        return entry if self.max_model_len is None else entry | {"max_model_len": self.max_model_len}

    def _classified(self, body: dict[str, Any]) -> dict[str, Any]:
        with self.lock:
            self.asked.append(body)
            sequences = [[*ids, *[5] * self.appended] for ids in body["input"]]
            rows = [self._outputs(ids) for ids in sequences]
        if body.get("use_activation") is not False:
            rows = [[1 / (1 + 2.718281828459045**-value) for value in row] for row in rows]
        data = [{"index": i, "label": "LABEL_0", "probs": row, "num_classes": len(row)} for i, row in enumerate(rows)]
        num_tokens = sum(map(len, sequences))
        usage = {"prompt_tokens": num_tokens, "total_tokens": num_tokens, "completion_tokens": 0}
        return {
            "id": "classify-1",
            "object": "list",
            "created": 0,
            "model": body["model"],
            "data": data,
            "usage": usage,
        }

    def _outputs(self, ids: list[int]) -> list[float]:
        """The outputs of the head at the last token, whichever that is."""
        with torch.inference_mode():
            states = self._model.model(torch.tensor([ids])).last_hidden_state[0, -1]
            outputs: list[float] = self._model.score(states).tolist()
        return outputs


@contextmanager
def scoring_server(folder: Path, port: int = 0, **fields: Any) -> Iterator[ScoringServer]:
    scoring = ScoringServer(folder, **fields)
    scoring.load(folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._reply(None)

        def do_POST(self) -> None:
            self._reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _reply(self, body: dict[str, Any] | None) -> None:
            status, answer = scoring.answer(self.path, body, self.headers.get("Authorization"))
            content = b"" if answer is None else json.dumps(answer).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                with suppress(ConnectionError):  # whoever asked may be gone
                    self.wfile.write(content)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client did not wait

        def log_message(self, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        allow_reuse_address = True

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that went away in the middle, as one does whose time is over."""

    server = Server(("127.0.0.1", port), Handler)
    scoring.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield scoring
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
