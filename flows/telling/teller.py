"""Prefect is told what a run does, and never asked: training waits for no answer of its server.

From `begin` on, what Prefect's engine sends in this process (flow runs, states, task runs, events, logs, artifacts) goes
into an outbox, and the engine hears at once what the server would say. A thread delivers it. While the server is away,
all of it waits; what is left at the end of the process is kept on disk for the next one (`leftovers`).

Prefect's client leaves no place for this, so two of its methods are replaced: the one that sends a request, of its
synchronous and of its asynchronous HTTP client. Events would go over a socket of their own; Prefect's client for worker
processes, which hands them to a queue, brings them into the outbox too, so that all arrives in the order in which it
happened.
"""

import atexit
import json
import threading
from collections.abc import Callable
from contextvars import copy_context
from pathlib import Path
from typing import Any

import httpx
from prefect.client.base import PrefectHttpxAsyncClient, PrefectHttpxSyncClient
from prefect.events import Event
from prefect.events.worker import EventsWorker, ProcessPoolForwardingEventsClient
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows.prefect_server import identity_of
from flows.telling.leftovers import Leftover, forget, keep
from flows.telling.messages import EVENTS, Message
from flows.telling.messenger import is_away, speaks_directly
from flows.telling.outbox import Outbox
from flows.telling.replies import OK, Replies, Reply, message
from flows.telling.settling import settle as settle_leftovers

PATIENCE_S = 30.0
"""how long the end of a process waits for a server that takes nothing"""
DRAIN_S = 10.0
FLOW_RUNS = "/flow_runs/"
HEARTBEAT = "prefect.flow-run.heartbeat"

_ask, _ask_async = PrefectHttpxSyncClient.send, PrefectHttpxAsyncClient.send


class Teller:
    """What this process tells Prefect of one flow run, and of all below it."""

    def __init__(self, root: Path, warn: Callable[[str], None]) -> None:
        self.root = root
        self.replies = Replies()
        self.outbox = Outbox(warn)
        self._warn = warn
        self.work: Leftover | None = None
        """the flow run, once the server has created it; until then everything is asked"""
        self.settling: threading.Thread | None = None
        self._ended = threading.Event()
        self.outbox.start()

    def works_on(self, flow_run: str, name: str) -> None:
        self.work = Leftover(flow_run=flow_run, run=name, api_url=str(PREFECT_API_URL.value()), owner=identity_of())
        self._note([])

    def answer(self, request: httpx.Request, path: str) -> httpx.Response | None:
        """What the caller of a request hears at once; None where the server has to be asked."""
        if self.work is None:
            return None
        reply = self.replies.reply(request.method, path, request.content.decode())
        if reply is None:
            return self.recall(request, path) if self.outbox.away or not self.outbox.is_empty else None
        if reply.message is not None:
            self.outbox.put(reply.message)
        return _response(request, reply)

    def recall(self, request: httpx.Request, path: str) -> httpx.Response | None:
        """The last answer that the server gave to such a reading."""
        reply = self.replies.recall(path) if request.method == "GET" else None
        return None if reply is None else _response(request, reply)

    def to_ask(self, request: httpx.Request, path: str) -> httpx.Request:
        """The request with the server's ids, for which all that was told before is delivered first where it creates a flow run.

        A second flow of the same process refers to what only the outbox knows so far.
        """
        if request.method == "POST" and path == FLOW_RUNS:
            self.outbox.wait(PATIENCE_S)
        told = self.outbox.with_real_ids(message(request.method, path, request.content.decode()))
        url = request.url.copy_with(path=request.url.path.removesuffix(path) + told.path)
        headers = {name: value for name, value in request.headers.items() if name != "content-length"}
        return httpx.Request(request.method, url, headers=headers, content=told.body, extensions=request.extensions)

    def heard(self, request: httpx.Request, path: str, response: httpx.Response) -> None:
        """Remember what the server answered; the flow run that it created is the one that is told of from now on."""
        if request.method == "GET" and response.status_code == OK:
            self.replies.remember(path, response.json())
        elif request.method == "POST" and path in ("/flows/", FLOW_RUNS):
            created = response.json()
            self.replies.remember(f"{path}{created['id']}", created)
            if path == FLOW_RUNS:
                if self.work is not None and self.outbox.is_empty:
                    forget(self.root, self.work)
                self.works_on(created["id"], created["name"])

    def settle(self) -> None:
        context = copy_context()
        self.settling = threading.Thread(
            target=context.run,
            args=[settle_leftovers, self.root, self._ended, self.work and self.work.flow_run],
            daemon=True,
        )
        self.settling.start()

    def end(self) -> None:
        for worker in (APILogWorker, EventsWorker):
            worker.drain_all(timeout=DRAIN_S)
        if self.settling is not None:
            self.settling.join(0.0 if self.outbox.away else PATIENCE_S)
        untold = self.outbox.end(PATIENCE_S)
        self._ended.set()
        if untold:
            self._note(untold)
        elif self.work is not None:
            forget(self.root, self.work)

    def _note(self, untold: list[Message]) -> None:
        """Note on disk that this process works on the flow run, or has worked on it and could not tell the rest."""
        if self.work is None:
            return
        known = self.replies.recall(f"/flow_runs/{self.work.flow_run}")
        name = self.work.run if known is None else known.content["name"]  # it gets the run's name after it is created
        try:
            keep(self.root, self.work.model_copy(update={"run": name, "messages": untold}))
        except OSError as error:
            self._warn(f"what Prefect lacks of {self.work.run} cannot be kept for the next run to tell it: {error}")


_teller: Teller | None = None


def begin(root: Path, warn: Callable[[str], None], *, flow_run: str | None = None, name: str = "") -> None:
    """Tell Prefect from now on; of the flow run `flow_run` if there is one already, otherwise of the one created next.

    Does nothing if this process tells it already.
    """
    global _teller
    if _teller is not None:
        return
    _teller = Teller(root, warn)
    if flow_run is not None:
        _teller.works_on(flow_run, name)
    PrefectHttpxSyncClient.send = _tell  # type: ignore[method-assign, assignment]
    PrefectHttpxAsyncClient.send = _tell_async  # type: ignore[method-assign, assignment]
    EventsWorker.set_client_override(ProcessPoolForwardingEventsClient, event_queue=Events(_teller.outbox))
    atexit.register(end)


def settle() -> None:
    """Bring what earlier processes left in Prefect to its end, in a thread. The caller holds the workspace lock."""
    if _teller is not None:
        _teller.settle()


def end() -> None:
    """Deliver what waits, or keep it on disk for the next process."""
    global _teller
    if _teller is None:
        return
    atexit.unregister(end)
    try:
        _teller.end()
    finally:
        _teller = None
        EventsWorker.set_client_override(None)
        PrefectHttpxSyncClient.send = _ask  # type: ignore[method-assign]
        PrefectHttpxAsyncClient.send = _ask_async  # type: ignore[method-assign]


# ---- in the place of Prefect's ---------------------------------------------------------------------------------------


def _tell(client: PrefectHttpxSyncClient, request: httpx.Request, *args: Any, **kwargs: Any) -> httpx.Response:
    teller = _teller
    if teller is None or speaks_directly.get():
        return _ask(client, request, *args, **kwargs)
    path = _path(client, request)
    if (answer := teller.answer(request, path)) is not None:
        return answer
    try:
        with temporary_settings(_retries(teller)):
            response = _ask(client, teller.to_ask(request, path), *args, **kwargs)
    except httpx.HTTPError as error:
        if (recalled := teller.recall(request, path)) is None or not is_away(error):
            raise
        return recalled
    teller.heard(request, path, response)
    return response


async def _tell_async(
    client: PrefectHttpxAsyncClient, request: httpx.Request, *args: Any, **kwargs: Any
) -> httpx.Response:
    teller = _teller
    if teller is None or speaks_directly.get():
        return await _ask_async(client, request, *args, **kwargs)
    path = _path(client, request)
    if (answer := teller.answer(request, path)) is not None:
        return answer
    try:
        with temporary_settings(_retries(teller)):
            response = await _ask_async(client, teller.to_ask(request, path), *args, **kwargs)
    except httpx.HTTPError as error:
        if (recalled := teller.recall(request, path)) is None or not is_away(error):
            raise
        return recalled
    teller.heard(request, path, response)
    return response


class Events:
    """The queue into which Prefect puts events, which is the outbox."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def put(self, item: tuple[str, Event]) -> None:
        _, event = item
        body = f"[{event.model_dump_json()}]"
        self._outbox.put(message("POST", EVENTS, body, can_be_lost=event.event == HEARTBEAT))


def _path(client: httpx.Client | httpx.AsyncClient, request: httpx.Request) -> str:
    """The path below the API's address, such as `/flow_runs/`."""
    return "/" + request.url.path.removeprefix(client.base_url.path).lstrip("/")


def _response(request: httpx.Request, reply: Reply) -> httpx.Response:
    content = b"" if reply.content is None else json.dumps(reply.content).encode()
    return httpx.Response(reply.status, content=content, request=request)


def _retries(teller: Teller) -> dict[Any, Any]:
    return {} if teller.outbox.away is None else {PREFECT_CLIENT_MAX_RETRIES: 0}
