"""What a server's answers are taken for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import pytest

from configs.errors import ServerAway, ServerRefused
from reward_training.endpoint import LONGEST_TEXT, Endpoint, Patience
from reward_training.waiting import Waiting


class Failing(BaseHTTPRequestHandler):
    """Answers POST with 500 and drops the connection, at the next request: uvicorn does so while the client takes it again."""

    protocol_version = "HTTP/1.1"
    health = 200

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.failed = True
        self._answer(500, b"no such folder")

    def do_GET(self) -> None:
        if getattr(self, "failed", False):
            self.close_connection = True
        else:
            self._answer(self.health, b"")

    def _answer(self, status: int, body: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(ConnectionError):  # whoever asked may be gone
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


class Dead(Failing):
    """Its engine is dead."""

    health = 503


def answering(status: int, body: str, kind: str = "application/json") -> type[Failing]:
    """One that gives this answer to every POST, and to every GET but that for its health."""

    class Answering(Failing):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(status, body.encode(), kind)

        def do_GET(self) -> None:
            self._answer(*((200, b"") if self.path == "/health" else (status, body.encode())), kind)

    return Answering


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], key: str | None = None) -> Iterator[Endpoint]:
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    server = Endpoint(f"http://127.0.0.1:{http.server_port}", timeout_s=10, key=key)
    try:
        yield server
    finally:
        server.close()
        http.shutdown()
        thread.join()
        http.server_close()


def test_refusal_that_drops_the_connection_is_no_server_that_went_away() -> None:
    """A folder that is not there counted as a server that is away, and was waited for, where the dropped connection was asked for health."""
    with serving(Failing) as server, pytest.raises(ServerRefused, match="no such folder"):
        server.post("/update_weights", {})


def test_server_with_a_dead_engine_is_away() -> None:
    with serving(Dead) as server, pytest.raises(ServerAway, match="status 500"):
        server.post("/update_weights", {})


def test_closing_ends_a_request_that_is_under_way() -> None:
    """A thread that read from a connection which another closed went on waiting, and the server went on writing."""
    was_asked, may_answer = Event(), Event()

    class Slow(Failing):
        def do_POST(self) -> None:
            was_asked.set()
            may_answer.wait(30)
            self.close_connection = True

    found: list[BaseException] = []

    def ask(server: Endpoint) -> None:
        try:
            server.post("/v1/completions", {}, 60)
        except ServerAway as error:
            found.append(error)

    with serving(Slow) as server:
        thread = Thread(target=ask, args=(server,))
        thread.start()
        was_asked.wait(30)
        server.close()
        thread.join(10)
        is_over = not thread.is_alive()
        may_answer.set()
    assert is_over
    assert len(found) == 1


def refusal(status: int, body: str, kind: str = "application/json", key: str | None = None) -> str:
    """What is said of an answer, after the request."""
    with serving(answering(status, body, kind), key) as server, pytest.raises(ServerRefused) as caught:
        server.post("/x", {})
    assert caught.value.status == status
    before, _, said = str(caught.value).partition("/x: ")
    assert before == f"POST {server.url}"
    return said


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"error": {"message": "too long", "type": "BadRequestError", "code": 400}}', "too long"),  # vLLM
        ('{"object": "error", "message": "too\\n  long", "code": 400}', "too long"),  # vLLM before 0.10
        ('{"detail": "Not Found"}', "Not Found"),  # FastAPI
        ('{"detail": [{"loc": ["body", "input"], "msg": "Field required"}]}', "Field required"),
        ('{"error": "Unauthorized"}', "Unauthorized"),
        ('{"code": 7}', '{"code": 7}'),
        ("first line\nsecond", "first line second"),
        ("", "Bad Request"),
    ],
)
def test_error_of_a_server_is_told_in_its_words_and_in_one_line(body: str, said: str) -> None:
    """The doctor showed the JSON as it came."""
    assert refusal(400, body) == f"status 400: {said}"


def test_page_of_a_web_server_is_told_by_the_name_of_its_status() -> None:
    assert refusal(403, "<html><body>403</body></html>", "text/html") == "status 403: Forbidden"


def test_long_text_is_cut_and_the_key_is_not_repeated() -> None:
    assert refusal(401, '{"message": "no such key: s3cret"}', key="s3cret") == "status 401: no such key: ***"
    assert refusal(400, "long " * 1000) == "status 400: " + ("long " * 1000)[:LONGEST_TEXT]


@pytest.mark.parametrize(
    "body", ["", "Success: added", '{"data": [', '{"data": null}', '{"data": [{"name": "a"}]}', "[1]"]
)
def test_what_is_no_list_of_models_is_refused(body: str) -> None:
    """A page in the place of JSON ended the training by a TypeError that named no server."""
    said = r"GET http://127.0.0.1:\d+/v1/models: no list of models"
    with serving(answering(200, body)) as server, pytest.raises(ServerRefused, match=said):
        server.models()


def test_models_come_by_name_in_the_servers_order() -> None:
    with serving(answering(200, '{"data": [{"id": "policy", "max_model_len": 64}, {"id": "a"}]}')) as server:
        assert server.models() == {"policy": {"id": "policy", "max_model_len": 64}, "a": {"id": "a"}}
        assert [*server.models()] == ["policy", "a"]


def test_server_that_was_away_and_is_back_is_told_with_the_time() -> None:
    now, told = [100.0], []
    patience = Patience(600.0, "the server", waiting=Waiting(told.append), clock=lambda: now[0])
    assert patience.answered(100.0)
    assert patience.failed("no connection") == 600.0
    now[0] = 195.0
    assert patience.failed("no connection") == 505.0
    assert not patience.answered(150.0)  # it was asked before the last failure
    now[0] = 196.0
    assert patience.answered(195.5)
    assert patience.answered(196.0)
    assert told == [
        "the server does not answer (no connection); waiting up to 600 s",
        "the server answers again, after 96 s",
    ]
    assert patience.num_waits == 1


def test_server_that_is_not_waited_for_is_not_told_of() -> None:
    told: list[str] = []
    patience = Patience(0.0, "the server", waiting=Waiting(told.append))
    assert patience.failed("timeout") == 0.0
    assert patience.answered(float("inf"))
    assert told == []
