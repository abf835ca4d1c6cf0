"""Lets `regroup serve` outlive an absence of Prefect's server.

Prefect's runner asks the server every few seconds for scheduled runs, and ends with an error after three tries in vain. Here
its requests wait for the server instead, and the schedule goes on once that is back.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from prefect.client.base import PrefectHttpxAsyncClient
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows.telling.messenger import is_away

PAUSE_S = 2.0


class Patience:
    """Whether requests wait for a server that is away, and who hears of it."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.is_lost = False
        self._say = say
        self.is_away = False

    def wait_for(self, why: str) -> None:
        if not self.is_away:
            self._say(f"Prefect's server does not answer ({why}); waiting for it, and runs go on")
        self.is_away = True

    def answered(self) -> None:
        if self.is_away:
            self._say("Prefect's server answers again")
        self.is_away = False


@contextmanager
def patient(say: Callable[[str], None]) -> Iterator[Patience]:
    """While the block runs, Prefect's asynchronous clients wait for a server that is away; `say` hears of it."""
    patience, ask = Patience(say), PrefectHttpxAsyncClient.send

    async def send(
        client: PrefectHttpxAsyncClient, request: httpx.Request, *args: Any, **kwargs: Any
    ) -> httpx.Response:
        while True:
            try:
                with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
                    response = await ask(client, request, *args, **kwargs)
                patience.answered()
                return response
            except httpx.HTTPError as error:
                if patience.is_lost or not is_away(error):
                    raise
                patience.wait_for(str(error) or type(error).__name__)
            await asyncio.sleep(PAUSE_S)

    PrefectHttpxAsyncClient.send = send  # type: ignore[method-assign, assignment]
    try:
        yield patience
    finally:
        patience.is_lost = True
        PrefectHttpxAsyncClient.send = ask  # type: ignore[method-assign]
