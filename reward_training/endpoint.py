"""Speaks HTTP with servers that score or write: which is away and which refuses, bounds on replies, and how long one is waited for."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from threading import Lock
from typing import Any
from weakref import WeakSet

import httpx

from configs.errors import ConfigError, ServerAway, ServerRefused, StageStopped
from reward_training.waiting import Waiting

MAX_REPLY_BYTES = 2**20
"""a longer reply of a server that scores is not read to its end"""
CONNECT_S = 5.0
AWAY = {429, 502, 503, 504}
"""statuses of a server that is not there yet, or has too much to do"""
HEALTH_QUESTIONS = 3
MESSAGES = ("error", "message", "detail", "msg")
"""fields that hold the text of an error, or an object which does: those of vLLM, FastAPI and others"""
LONGEST_TEXT = 600
"""of what a server says of an error, in characters"""
LONGEST_PAUSE_S = 2.0


class ReplyTooLong(Exception):
    """The server sends more than it may."""


def key_in(variable: str | None, field: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """The key in an environment variable; None without a variable. `field` names the variable in the configuration.

    Raises:
        ConfigError: the variable is not set or empty.
    """
    if variable is None:
        return None
    if not environment.get(variable):
        raise ConfigError(f"{field}={variable} is not set; export the server's key under that name")
    return environment[variable]


def bounded(seconds: float, response: Any, max_bytes: int = MAX_REPLY_BYTES) -> None:
    """Bound the size of a response's body and the time that it takes; httpx bounds each read alone.

    A body over the bound raises ReplyTooLong, a slow one TimeoutError.
    """
    read, end = response.iter_bytes, time.monotonic() + seconds

    def iter_bytes(*arguments: Any) -> Iterator[bytes]:
        num_bytes = 0
        for chunk in read(*arguments):
            num_bytes += len(chunk)
            if num_bytes > max_bytes:
                raise ReplyTooLong
            if time.monotonic() > end:
                raise TimeoutError
            yield chunk

    response.iter_bytes = iter_bytes


class Endpoint:
    """A server that takes and gives JSON. Threads may share it. Close it after use."""

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        key: str | None = None,
        max_connections: int | None = None,
        max_bytes: int = MAX_REPLY_BYTES,
        by_proxy: bool = True,
    ) -> None:
        """`timeout_s` is for requests that bring none of their own; `by_proxy`: whether a proxy that the environment names is used."""
        self.url = url.rstrip("/")
        self._timeout_s, self._key, self._max_bytes = timeout_s, key, max_bytes
        self._client = httpx.Client(
            headers={} if key is None else {"Authorization": f"Bearer {key}"},
            limits=httpx.Limits(max_connections=max_connections, max_keepalive_connections=max_connections),
            event_hooks={"response": [self._bound]},
            trust_env=by_proxy,
        )
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._is_closed = False
        self._lock = Lock()

    def close(self) -> None:
        """Close the connections. Threads that wait for an answer get ServerAway, and the server need not write it."""
        with self._lock:
            self._is_closed, sockets = True, list(self._sockets)
        for each in sockets:
            _end(each)
        self._client.close()

    def get(self, path: str, timeout_s: float | None = None) -> Any:
        """The answer to GET, read from JSON; None where it is empty or no JSON.

        Raises:
            ServerAway: no whole answer in time, or one which says that the server is not there or its engine is dead.
            ServerRefused: an endless or broken answer, or any other status than 2xx.
        """
        return self._ask("GET", path, None, timeout_s)

    def post(self, path: str, body: dict[str, Any], timeout_s: float | None = None) -> Any:
        """The answer to POST of `body` as JSON; like `get` otherwise."""
        return self._ask("POST", path, body, timeout_s)

    def models(self) -> dict[str, dict[str, Any]]:
        """What the server says of each model by name: of its own first, then of its adapters. Raises like `get`."""
        try:
            return {str(entry["id"]): entry for entry in self.get("/v1/models")["data"]}
        except (KeyError, TypeError) as error:
            raise ServerRefused(f"GET {self.url}/v1/models: no list of models", status=200) from error

    def _ask(self, method: str, path: str, body: dict[str, Any] | None, timeout_s: float | None) -> Any:
        response = self._request(method, path, body, timeout_s)
        if response.is_success:
            return _json_of(response)
        said = f"status {response.status_code}: {self._words(response)}"
        if response.status_code in AWAY or (response.status_code == 500 and self._is_dead()):
            raise ServerAway(said)
        raise ServerRefused(f"{method} {self.url}{path}: {said}", status=response.status_code)

    def _request(
        self, method: str, path: str, body: dict[str, Any] | None = None, timeout_s: float | None = None
    ) -> httpx.Response:
        seconds = self._timeout_s if timeout_s is None else timeout_s
        # pool=None: a thread may wait for a connection as long as the others need
        connect_s = min(CONNECT_S, seconds)
        timeout = httpx.Timeout(seconds, connect=connect_s, pool=None)
        try:
            extensions = {"trace": self._note}
            return self._client.request(method, self.url + path, json=body, timeout=timeout, extensions=extensions)
        except httpx.ConnectTimeout as error:
            raise ServerAway(f"no connection within {connect_s:g} s") from error
        except (httpx.TimeoutException, TimeoutError) as error:
            raise ServerAway(f"no answer within {seconds:g} s") from error
        except httpx.TransportError as error:
            raise ServerAway(f"no connection: {error or type(error).__name__}") from error
        except (ReplyTooLong, httpx.HTTPError) as error:
            raise ServerRefused(f"{method} {self.url}{path}: an endless or broken reply") from error

    def _note(self, event: str, info: dict[str, Any]) -> None:
        """Called with what happens in a request (https://www.python-httpx.org/advanced/extensions/#trace)."""
        if event == "connection.connect_tcp.complete":
            connected: socket.socket = info["return_value"].get_extra_info("socket")
            with self._lock:
                self._sockets.add(connected)
            if self._is_closed:  # the client no longer knows of it
                _end(connected)

    def _bound(self, response: httpx.Response) -> None:
        bounded(response.request.extensions["timeout"]["read"], response, self._max_bytes)

    def _words(self, response: httpx.Response) -> str:
        text = _said(response)
        return (text if self._key is None else text.replace(self._key, "***"))[:LONGEST_TEXT]

    def _is_dead(self) -> bool:
        """Whether the server says that its engine is dead; one that knows no /health is taken to be well.

        After a 500 it closes the connection, which the first question may still take.
        """
        for _ in range(HEALTH_QUESTIONS):
            with suppress(ServerAway):
                return self._request("GET", "/health").status_code >= 500
        return True


def _end(connected: socket.socket) -> None:
    with suppress(OSError):  # it may be closed already
        connected.shutdown(socket.SHUT_RDWR)  # to close it alone does not wake who reads from it
    connected.close()


def _json_of(response: httpx.Response) -> Any:
    try:
        return json.loads(response.content)
    except (ValueError, RecursionError):
        return None


def _said(response: httpx.Response) -> str:
    """What an error says, in one line: the message in its JSON, else its text; of a page in HTML, the name of the status."""
    body = _json_of(response)
    while isinstance(body, dict | list):
        found = [body.get(name) for name in MESSAGES] if isinstance(body, dict) else body
        body = next(filter(None, found), None)
    is_page = "html" in response.headers.get("content-type", "")
    text = str(body) if body else "" if is_page else response.text
    return " ".join(text.split()) or response.reason_phrase


class Patience:
    """How long a server that is away is waited for, counted together for all threads that ask it."""

    def __init__(
        self,
        patience_s: float,
        who: str,
        *,
        waiting: Waiting = Waiting(),  # noqa: B008 - it is frozen
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.patience_s = patience_s
        self.num_waits = 0
        """times that the server was found away"""
        self._who, self._waiting, self._clock, self._sleep = who, waiting, clock, sleep
        self._lock = Lock()
        self._since: float | None = None
        self._failed_s = float("-inf")

    def failed(self, reason: str) -> float:
        """Note that the server did not answer, and say so the first time; returns the seconds of patience that are left."""
        with self._lock:
            now = self._failed_s = self._clock()
            if self._since is None:
                self._since = now
                self.num_waits += 1
                if self.patience_s > 0:
                    self._waiting.warn(f"{self._who} does not answer ({reason}); waiting up to {self.patience_s:g} s")
            return max(0.0, self.patience_s - (now - self._since))

    def answered(self, asked_s: float) -> bool:
        """Note that the server has answered what it was asked at the clock's time `asked_s`, and say so if it was away.

        False where the last failure came later: such an answer says nothing of now.
        """
        with self._lock:
            if asked_s <= self._failed_s:
                return False
            since, self._since = self._since, None
            if since is not None and self.patience_s > 0:
                self._waiting.warn(f"{self._who} answers again, after {self._clock() - since:.0f} s")
            return True

    def lasts(self, reason: str) -> bool:
        """Pause after a failure. False at once where the server has been away for `patience_s` seconds.

        Raises:
            StageStopped: the stage was asked to stop.
        """
        self._refuse_stopped()
        left = self.failed(reason)
        if left <= 0:
            return False
        self._sleep(min(0.1 + (self.patience_s - left) / 4, LONGEST_PAUSE_S, left))
        self._refuse_stopped()
        return True

    def _refuse_stopped(self) -> None:
        if self._waiting.should_stop():
            raise StageStopped(f"stopped while waiting for {self._who}")
