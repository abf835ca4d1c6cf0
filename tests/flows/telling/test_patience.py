"""Prefect's runner waits for a server that is away."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from prefect.client.base import PrefectHttpxAsyncClient
from prefect.client.orchestration import get_client

from flows.telling import patience as room
from flows.telling.patience import patient
from tests.flows.telling.fake_prefect import FakePrefect


async def ask() -> int:
    async with get_client() as client:
        return (await client._client.get("/ready")).status_code


@pytest.mark.parametrize("status", [None, 503])
def test_a_request_waits_until_the_server_is_back(
    fake: FakePrefect, monkeypatch: pytest.MonkeyPatch, status: int | None
) -> None:
    monkeypatch.setattr(room, "PAUSE_S", 0.05)
    said: list[str] = []

    async def story() -> int:
        if status is None:
            fake.stop()
        else:
            fake.fails_at["/ready"] = status
        asked = asyncio.create_task(ask())
        while not said:
            await asyncio.sleep(0.01)
        fake.fails_at.clear()
        if status is None:
            fake.start()
        return await asked

    with patient(said.append):
        assert asyncio.run(story()) == 200
    assert [text.partition(" (")[0] for text in said] == [
        "Prefect's server does not answer",
        "Prefect's server answers again",
    ]


def test_an_answer_that_says_no_is_no_absence(fake: FakePrefect) -> None:
    fake.fails_at["/ready"] = 404
    with patient(lambda _: None), pytest.raises(httpx.HTTPStatusError, match="404"):
        asyncio.run(ask())


def test_what_waits_when_the_block_ends_hears_that_the_server_is_away(fake: FakePrefect) -> None:
    fake.stop()
    before = PrefectHttpxAsyncClient.send

    async def story() -> None:
        with patient(lambda _: None) as patience:
            asked = asyncio.create_task(ask())
            while not patience.is_away:
                await asyncio.sleep(0.01)
        with pytest.raises(httpx.ConnectError):
            await asked

    asyncio.run(story())
    assert PrefectHttpxAsyncClient.send is before
