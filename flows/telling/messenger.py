"""Delivers messages to Prefect's server."""

import json
import time
from contextlib import ExitStack
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Self

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows.telling.messages import FINAL, SERVER_ERROR, Away, Message, Refused, with_ids

TIMEOUT_S = 15.0
LATE_S = 30.0
NOT_NOW = frozenset({401, 403, 408, 429, 502, 503, 504})
"""answers of a server that may take the same message later"""

speaks_directly = ContextVar("speaks directly", default=False)
"""whether requests of this context go to the server at once; those of a messenger do"""


def is_away(error: httpx.HTTPError) -> bool:
    """Whether the server does not answer, or answers that it cannot work now."""
    if not isinstance(error, httpx.HTTPStatusError):
        return True
    status = error.response.status_code
    return status in NOT_NOW or status >= SERVER_ERROR


class Messenger:
    """Delivers messages, in order, to the server of PREFECT_API_URL; use it as a context, and in one thread."""

    def __init__(self) -> None:
        self._context = ExitStack()
        # its own client: with other settings than that of a running flow, Prefect does not share that flow's
        self._client: SyncPrefectClient = get_client({"timeout": TIMEOUT_S}, sync_client=True)
        self.real_ids: dict[str, str] = {}
        """{own id: the server's id}"""

    def __enter__(self) -> Self:
        self._context.enter_context(temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}))
        token = speaks_directly.set(True)
        self._context.callback(speaks_directly.reset, token)
        return self

    def __exit__(self, *_: object) -> None:
        self._context.close()

    def deliver(self, message: Message) -> None:
        """Hand over one message.

        Raises:
            Away: it has to be tried again.
            Refused: it can't be delivered.
        """
        answer = self.ask(message.method, message.path, _body_now(message))
        try:
            if message.own_id is not None:
                self.real_ids[message.own_id] = answer["id"]
            is_refused = message.path.endswith("/set_state") and answer["status"] != "ACCEPT"
        except (KeyError, TypeError) as error:
            raise Away("what answers is not Prefect") from error
        if is_refused:
            self._insist(message)

    def ask(self, method: str, path: str, body: str | None = None) -> Any:
        """The JSON that the server answers, None where it is empty; own ids in path and body become the server's.

        Raises:
            Away, Refused
        """
        try:
            told = None if body is None else with_ids(body, self.real_ids)
            response = self._request(method, with_ids(path, self.real_ids), told)
            return response.json() if response.content else None
        except ValueError as error:
            raise Away("what answers is not Prefect") from error
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            if status in NOT_NOW or (status >= SERVER_ERROR and not self._is_ready()):
                raise Away(f"{status} {error.response.reason_phrase}") from error
            raise Refused(f"{method} {path}: {status} {error.response.text[:500]}", status) from error
        except httpx.HTTPError as error:
            raise Away(str(error) or type(error).__name__) from error

    def _is_ready(self) -> bool:
        """Whether the server reaches its database, so that an error is that of the request."""
        try:
            return self._request("GET", "/ready").status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def _request(self, method: str, path: str, body: str | None = None) -> httpx.Response:
        request = {"content": body, "headers": {"Content-Type": "application/json"}} if body else {}
        return self._client.request(method, path, **request)  # type: ignore[arg-type]

    def _insist(self, message: Message) -> None:
        """Set a final state by force where the server's rules refuse it: it says what has happened."""
        body = json.loads(message.body)
        if body["state"]["type"] in FINAL and not body["force"]:
            self.ask(message.method, message.path, json.dumps(body | {"force": True}))


def _body_now(message: Message) -> str:
    """The body; a state that is told late says when it was so, since the server stamps it with the time of the telling."""
    if not message.path.endswith("/set_state") or time.time() - message.at_s < LATE_S:
        return message.body
    body = json.loads(message.body)
    then = f"told late: it was so at {datetime.fromtimestamp(message.at_s, UTC):%Y-%m-%d %H:%M:%S} UTC"
    said = body["state"].get("message")
    body["state"]["message"] = f"{said} ({then})" if said else then
    return json.dumps(body)
